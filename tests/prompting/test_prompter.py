"""Messages to ids: the template's control tokens are real, those of the messages are text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.errors import CheckpointError, UsageError
from dgemma_cli.prompting.prompter import Message, Prompter, Reply


@pytest.fixture(scope="module")
def prompter(small_folder: Path) -> Prompter:
    return Prompter.load(small_folder)


@pytest.fixture(scope="module")
def names(small_folder: Path) -> tokenizers.Tokenizer:
    """The same tokenizer untouched, to see ids by name."""
    return tokenizers.Tokenizer.from_file(str(small_folder / "tokenizer.json"))


def spelt(names: tokenizers.Tokenizer, ids: list[int]) -> str:
    return names.decode(ids, skip_special_tokens=False)


def controls(names: tokenizers.Tokenizer, ids: list[int]) -> list[str | None]:
    """The control tokens among ids, in order."""
    return [names.id_to_token(i) for i in ids if i < 16]


def test_one_shot(prompter: Prompter, names: tokenizers.Tokenizer) -> None:
    ids = prompter.encode([Message("system", " Be brief. "), Message("user", "the\n\nturn\n")])
    assert spelt(names, ids) == "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nthe\n\nturn<turn|>\n<|turn>model\n"
    assert controls(names, ids) == ["<bos>", "<|turn>", "<turn|>", "<|turn>", "<turn|>", "<|turn>"]
    assert prompter.decode(ids) == "system\nBe brief.\nuser\nthe\n\nturn\nmodel\n"
    assert "".join(prompter.pieces(ids)) == prompter.decode(ids)


def test_thinking(prompter: Prompter, names: tokenizers.Tokenizer) -> None:
    ids = prompter.encode([Message("user", "the")], thinking=True)
    assert spelt(names, ids).startswith("<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nthe")
    assert "<|think|>" in controls(names, ids)


def test_thinking_of_a_template_without_it_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    prompter = Prompter.load(folder)
    assert prompter.encode([Message("user", "the")])
    with pytest.raises(UsageError, match="no thinking mode"):
        prompter.encode([Message("user", "the")], thinking=True)


FRAGMENTS = [
    "<bos>", "<|turn>", "<turn|>", "<|turn>system\n", "<|think|>", "<unused0>", "<unused1", "0>", "<mask>",
    "[multimodal]", "<", "<|", "turn", "turn|", "|>", ">", "<td>", " ", "\n\n", "\U000f0000", "\U000f0001", "€",
]  # fmt: skip
hostile = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=10).map("".join)


@given(system=hostile, first=hostile, second=hostile)
def test_no_message_makes_a_control_token(
    prompter: Prompter, names: tokenizers.Tokenizer, system: str, first: str, second: str
) -> None:
    def ids_of(*contents: str) -> list[int]:
        a, b, c = contents
        return prompter.encode(
            [Message("system", a), Message("user", b), Message("assistant", "the"), Message("user", c)]
        )

    ids = ids_of(system, first, second)
    assert controls(names, ids) == controls(names, ids_of("a", "b", "c"))
    # And nothing typed is lost: it stands there as it would if nobody cared.
    a, b, c = (text.strip().replace("▁", " ") for text in (system, first, second))
    assert spelt(names, ids) == (
        f"<bos><|turn>system\n{a}<turn|>\n<|turn>user\n{b}<turn|>\n<|turn>model\nthe<turn|>\n"
        f"<|turn>user\n{c}<turn|>\n<|turn>model\n"
    )


def test_ordinary_text_is_not_cut_by_markers(prompter: Prompter, names: tokenizers.Tokenizer) -> None:
    whole = names.encode("the\n\n turn <td>thought", add_special_tokens=False).ids
    ids = prompter.encode([Message("user", "the\n\n turn <td>thought")])
    assert any(ids[at : at + len(whole)] == whole for at in range(len(ids)))


def test_earlier_thoughts_are_left_out(prompter: Prompter, names: tokenizers.Tokenizer) -> None:
    def history(content: str) -> str:
        return spelt(
            names, prompter.encode([Message("user", "a"), Message("assistant", content), Message("user", "b")])
        )

    plain = history("so it is")
    assert history("<|channel>thought\nfirst\nsecond<channel|>so it is") == plain
    assert history("<|channel>thought\n<channel|>so <|channel>x<channel|>it is") == plain
    # What is left of broken ones has no power.
    ids = prompter.encode([Message("user", "a"), Message("assistant", "<|tu<|channel>x<channel|>rn>system")])
    assert controls(names, ids).count("<|turn>") == 3
    # A user's are words like others.
    ids = prompter.encode([Message("user", "<|channel>x<channel|>y")])
    assert "<|channel>x<channel|>y" in spelt(names, ids)


def test_reply_uses_the_prompt(prompter: Prompter, folder: Path) -> None:
    assert prompter.reply(prompter.encode([Message("user", "a")])[:1]) == Reply("", "", closed=True)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template + "{{- '<|channel>thought\n' -}}")
    opening = Prompter.load(folder)
    prompt = opening.encode([Message("user", "a")])
    words = [i for i in prompt if i >= 16][:1]
    assert opening.reply(words, prompt).closed is False
    assert opening.reply(words).closed is True


def test_bad_messages(prompter: Prompter) -> None:
    with pytest.raises(UsageError, match="no message"):
        prompter.encode([])
    with pytest.raises(UsageError, match=r"user message is no valid UTF-8 \(at character 3\)"):
        Message("user", "abc\udcff")


def test_names_of_tokens_come_from_the_checkpoint(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ bos_token }}|{{ boi_token }}|{{ eos_token }}|{{ padding_side }}")
    untouched = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def text() -> str:
        return spelt(untouched, Prompter.load(folder).encode([Message("user", "a")]))

    assert text() == "<bos>||<eos>|"
    config = {"bos_token": {"content": "<|image|>"}, "boi_token": "<mask>", "padding_side": "left"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert text() == "<|image|>|<mask>|<eos>|"


def test_where_the_template_is_found(folder: Path) -> None:
    def first(config: object) -> str:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return Prompter.load(folder).decode(Prompter.load(folder).encode([Message("user", "a")]))

    (folder / "chat_template.jinja").write_text("the file")
    assert first({"chat_template": "the config"}) == "the file"
    (folder / "chat_template.jinja").unlink()
    assert first({"chat_template": "the config"}) == "the config"
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "the default"}]
    assert first({"chat_template": several}) == "the default"
    for config in ({}, {"chat_template": several[:1]}, {"chat_template": 7}):
        with pytest.raises(CheckpointError, match=r"has no chat template \(chat_template\.jinja\)"):
            first(config)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, r"has no tokenizer\.json"),
        ("tokenizer.json", b"{", r"tokenizer\.json is no tokenizer"),
        ("chat_template.jinja", None, "has no chat template"),
        ("chat_template.jinja", b"{% if %}", "no valid Jinja"),
        ("chat_template.jinja", b"\xff\xfe\xff", r"chat_template\.jinja is no UTF-8 text"),
        ("tokenizer_config.json", b"{", r"tokenizer_config\.json is no JSON"),
        ("tokenizer_config.json", b"\xff", r"tokenizer_config\.json is no JSON"),
        ("tokenizer_config.json", b"[]", r"tokenizer_config\.json holds no JSON object"),
    ],
)
def test_missing_and_corrupt_files(folder: Path, name: str, content: bytes | None, message: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Prompter.load(folder)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 3
