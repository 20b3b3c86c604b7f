"""The published tokenizer and both of its templates, against transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from dgemma_cli.prompting.prompter import Message, Prompter, Reply

DATA = Path(__file__).parents[2].parent / "shared" / "data"
EMPTY_THOUGHT = "<|channel>thought\n<channel|>"


@pytest.fixture(scope="module")
def current(published: Path) -> Prompter:
    return Prompter.load(published)


@pytest.fixture(scope="module")
def release(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Prompter:
    folder = tmp_path_factory.mktemp("release")
    (folder / "tokenizer.json").symlink_to(published / "tokenizer.json")
    shutil.copy(DATA / "chat_template.release.jinja", folder / "chat_template.jinja")
    return Prompter.load(folder)


class Oracle:
    """transformers on the same files."""

    def __init__(self, folder: Path) -> None:
        self.inner: Any = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            bos_token="<bos>",
            eos_token="<eos>",
            pad_token="<pad>",
            unk_token="<unk>",
        )

    def id(self, name: str) -> int:
        return int(self.inner.convert_tokens_to_ids(name))

    def names(self, ids: list[int]) -> list[str]:
        return list(self.inner.convert_ids_to_tokens(ids))

    def encode(self, markup: str) -> list[int]:
        return list(self.inner.encode(markup, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        return str(self.inner.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def prompt(self, template: str, messages: list[Message], thinking: bool = False) -> list[int]:
        return list(
            self.inner.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                chat_template=(DATA / f"chat_template.{template}.jinja").read_text(),
                add_generation_prompt=True,
                enable_thinking=thinking,
                return_dict=False,
            )
        )


@pytest.fixture(scope="module")
def oracle(published: Path) -> Oracle:
    return Oracle(published)


def test_the_known_rendering(current: Prompter, oracle: Oracle) -> None:
    ids = current.encode([Message("user", "Why is the sky blue?")])
    assert ids[:10] == [2, 105, 2364, 107, 11355, 563, 506, 7217, 3730, 236881]
    assert ids[10:] == [106, 107, 105, 4368, 107]


CONVERSATIONS = [
    [Message("user", "Hi")],
    [Message("user", "")],
    [Message("system", "Be brief."), Message("user", "Hi")],
    [Message("system", "  Be\n\n\nbrief.\n"), Message("user", "\n\tdef f():\n        return 1\n\n")],
    [Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "<td>x</td> & <code>y</code>")],
    [
        Message("system", "Be brief."),
        Message("user", "1 + 1?"),
        Message("assistant", "<|channel>thought\nEasy.\n<channel|>2"),
        Message("user", "And 2 + 2?"),
        Message("assistant", EMPTY_THOUGHT + "4\n"),
        Message("user", "Sure? 😀 𒀀 नमस्ते"),
    ],
]


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("template", ["current", "release"])
def test_conversations(
    request: pytest.FixtureRequest, oracle: Oracle, template: str, thinking: bool, messages: list[Message]
) -> None:
    prompter: Prompter = request.getfixturevalue(template)
    assert prompter.encode(messages, thinking) == oracle.prompt(template, messages, thinking)


@pytest.fixture(scope="module")
def control(published: Path) -> set[str]:
    """Every added token that is no text, as a person reads the file: the special ones and the placeholders."""
    head = (published / "tokenizer.json").read_text("utf-8")[:2_000_000]
    added, _ = json.JSONDecoder().raw_decode(head, head.index("[", head.index('"added_tokens"')))
    return {
        token["content"]
        for token in added
        if token["special"] or token["content"].startswith("<unused") or token["content"] in ("<mask>", "[multimodal]")
    }


ordinary = st.lists(
    st.text(max_size=12)
    | st.sampled_from(
        ["\n\n", "\n", "   ", "▁▁", "\t\t", "<b>", "</b>", "<td", "<|", "|>", "<", "é", "😀", "𒀀", " the"]
    ),
    max_size=8,
).map("".join)


@given(system=ordinary, user=ordinary, assistant=ordinary, again=ordinary, thinking=st.booleans())
@settings(max_examples=200)
def test_ordinary_text_is_encoded_as_transformers_does(
    current: Prompter,
    oracle: Oracle,
    control: set[str],
    system: str,
    user: str,
    assistant: str,
    again: str,
    thinking: bool,
) -> None:
    assume(not any(name in text for text in (system, user, assistant, again) for name in control))
    messages = [
        Message("system", system),
        Message("user", user),
        Message("assistant", assistant),
        Message("user", again),
    ]
    assert current.encode(messages, thinking) == oracle.prompt("current", messages, thinking)


def test_every_control_token_typed_is_text(current: Prompter, oracle: Oracle, control: set[str]) -> None:
    assert len(control) == 6252
    ids = {oracle.id(name) for name in control}
    plain = current.encode([Message("system", "a"), Message("user", "b")])
    lines, line = "\n".join(sorted(control)), "".join(sorted(control))
    typed = current.encode([Message("system", lines), Message("user", line)])
    assert [i for i in typed if i in ids] == [i for i in plain if i in ids]
    assert oracle.decode(typed) == (f"<bos><|turn>system\n{lines}<turn|>\n<|turn>user\n{line}<turn|>\n<|turn>model\n")


@given(st.data())
@settings(max_examples=200)
def test_no_message_makes_a_control_token(
    current: Prompter, oracle: Oracle, control: set[str], data: st.DataObject
) -> None:
    fragments = st.sampled_from(
        ["<|turn>", "<turn|>", "<bos>", "<|channel>", "<channel|>", "<|think|>", "<unused7>", "<mask>"]
    )
    halves = st.sampled_from(["<", "<|", "|>", ">", "turn", "<unused", "7>", "system\n", "\n", " "])
    hostile = st.lists(fragments | halves | st.text(max_size=3), max_size=10).map("".join)
    contents = [data.draw(hostile) for _ in range(3)]
    roles = ("system", "user", "user")
    ids = {oracle.id(name) for name in control}
    typed = current.encode([Message(role, content) for role, content in zip(roles, contents, strict=True)])
    plain = current.encode([Message(role, "a") for role in roles])
    assert [i for i in typed if i in ids] == [i for i in plain if i in ids]
    a, b, c = (content.strip() for content in contents)
    assert oracle.decode(typed) == (
        f"<bos><|turn>system\n{a}<turn|>\n<|turn>user\n{b}<turn|>\n<|turn>user\n{c}<turn|>\n<|turn>model\n"
    ).replace("▁", " ")


@given(st.lists(st.integers(0, 262_143) | st.integers(238, 493), max_size=40))
def test_decoding(current: Prompter, oracle: Oracle, control: set[str], ids: list[int]) -> None:
    names = oracle.names(ids)
    kept = [i for i, name in zip(ids, names, strict=True) if name not in control]
    text = oracle.decode(kept)
    assert current.decode(ids) == text
    assert "".join(current.pieces(ids)) == text


def test_replies_of_both_templates(current: Prompter, release: Prompter, oracle: Oracle) -> None:
    messages = [Message("user", "Hi")]
    answer = Reply("", "Hello 😀!", closed=True)
    assert current.reply(oracle.encode(EMPTY_THOUGHT + "Hello 😀!<turn|>"), current.encode(messages)) == answer
    assert release.reply(oracle.encode("Hello 😀!<turn|>\n<pad>"), release.encode(messages)) == answer
    assert release.reply(oracle.encode("Hello 😀!<turn|>")) == answer
    thought = oracle.encode("<|channel>thought\nThe user greets.\n<channel|>Hello 😀!<turn|>")
    for prompter in (current, release):
        prompt = prompter.encode(messages, thinking=True)
        assert prompter.reply(thought, prompt) == Reply("The user greets.", "Hello 😀!", closed=True)
        cut = thought[: thought.index(oracle.id("<channel|>"))]
        assert prompter.reply(cut, prompt) == Reply("The user greets.", "", closed=False)
