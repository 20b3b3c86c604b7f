"""Thinking and answer come apart by token ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.prompting.reply import Reply, parse
from dgemma_cli.prompting.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(small_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(small_folder / "tokenizer.json")


def ids_of(tokenizer: Tokenizer, markup: str) -> list[int]:
    """Ids of text in which control tokens are meant as such."""
    return [
        i for part in tokenizer.split(markup) for i in ([part] if isinstance(part, int) else tokenizer.encode(part))
    ]


@pytest.mark.parametrize(
    ("markup", "thinking", "answer"),
    [
        ("", "", ""),
        ("the answer", "", "the answer"),
        ("the answer<turn|>junk<turn|>", "", "the answer"),
        ("the answer<eos><pad><pad>", "", "the answer"),
        ("the answer<|tool_response>junk", "", "the answer"),
        ("<turn|>junk", "", ""),
        ("<|channel>thought\n<channel|>the answer", "", "the answer"),  # the empty thought of the current template
        ("<|channel>thought\n\n<channel|>\n\nthe answer\n", "", "the answer"),
        ("<|channel>thought<channel|>the answer", "", "the answer"),
        ("<|channel><channel|>the answer", "", "the answer"),
        ("<|channel>thought\nLet me\nsee.\n<channel|>the answer<turn|>", "Let me\nsee.", "the answer"),
        ("<|channel>thought\nOne\n<channel|>", "One", ""),
        ("<|channel>thought\na b<channel|>one, <|channel>thought\nc d<channel|>two", "a b\n\nc d", "one, two"),
        ("first<|channel>thought\nx y<channel|>", "x y", "first"),
        ("<|channel>thought\na b<|channel>other\nc d<channel|>so", "a b\n\nc d", "so"),
        # The first token is lost: the rest is no answer.
        ("thought\n<channel|>the answer", "", "the answer"),
        ("thought\nLet me see.<channel|>the answer", "Let me see.", "the answer"),
        ("Let me\nsee it.<channel|>the answer", "Let me\nsee it.", "the answer"),
        ("<|channel>thought\n<channel|>one, <|channel>thought\nx y<channel|>two", "x y", "one, two"),
        # A stray end after a channel means nothing.
        ("<|channel>thought\nx y<channel|>the <channel|>answer", "x y", "the answer"),
        ("x y<channel|>the <channel|>answer", "x y", "the answer"),
        # Other control tokens are left out.
        ("the<unused0> <mask>answer", "", "the answer"),
        ("  indented\nanswer \n", "", "  indented\nanswer"),
    ],
)  # fmt: skip
def test_reply(tokenizer: Tokenizer, markup: str, thinking: str, answer: str) -> None:
    assert parse(tokenizer, ids_of(tokenizer, markup)) == Reply(thinking, answer, closed=True)


@pytest.mark.parametrize(
    ("markup", "thinking", "answer"),
    [
        ("<|channel>", "", ""),
        ("<|channel>thou", "", ""),
        ("<|channel>thought\nLet me", "Let me", ""),
        ("<|channel>thought\nLet me<turn|><channel|>junk", "Let me", ""),
        ("<|channel>thought\na b<channel|>so<|channel>thought\nc d", "a b\n\nc d", "so"),
    ],
)
def test_a_thought_never_closed(tokenizer: Tokenizer, markup: str, thinking: str, answer: str) -> None:
    assert parse(tokenizer, ids_of(tokenizer, markup)) == Reply(thinking, answer, closed=False)


@pytest.mark.parametrize("prompt", ["<|turn>model\n<|channel>thought\n", "<channel|><|turn>model\n<|channel>"])
def test_the_template_opened_a_thought(tokenizer: Tokenizer, prompt: str) -> None:
    before = ids_of(tokenizer, prompt)
    name = "" if prompt.endswith("\n") else "thought\n"
    ids = ids_of(tokenizer, name + "Let me see.<channel|>the answer<turn|>")
    assert parse(tokenizer, ids, before) == Reply("Let me see.", "the answer", closed=True)
    assert parse(tokenizer, ids_of(tokenizer, name + "Let me"), before) == Reply("Let me", "", closed=False)


@pytest.mark.parametrize(
    "prompt",
    ["<|turn>model\n", "<|turn>user\n<|channel>x<channel|><turn|>", "<|turn>model\n<|channel>thought\n<channel|>"],
)
def test_the_template_opened_nothing_or_an_empty_thought(tokenizer: Tokenizer, prompt: str) -> None:
    ids = ids_of(tokenizer, "the answer")
    assert parse(tokenizer, ids, ids_of(tokenizer, prompt)) == Reply("", "the answer", closed=True)


def test_channels_spelt_in_text_are_text(tokenizer: Tokenizer) -> None:
    text = "write <|channel>thought\nx<channel|> and <turn|> so"
    assert parse(tokenizer, tokenizer.encode(text)) == Reply("", text, closed=True)


def test_a_character_across_a_thought_is_not_lost(tokenizer: Tokenizer) -> None:
    euro = tokenizer.encode("€")
    ids = [*ids_of(tokenizer, "<|channel>thought\n<channel|>"), *euro, *ids_of(tokenizer, "<turn|>")]
    assert parse(tokenizer, ids).answer == "€"


def test_a_tokenizer_without_channels(tokenizer: Tokenizer, small_folder: Path, tmp_path: Path) -> None:
    renamed = (small_folder / "tokenizer.json").read_text().replace("channel", "chanel")
    (tmp_path / "tokenizer.json").write_text(renamed)
    plain = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert parse(plain, plain.encode("the answer")) == Reply("", "the answer", closed=True)


words = st.text(alphabet="the ownxyz", min_size=1).map(str.strip).filter(bool)


@given(thought=words, answer=words)
def test_nothing_leaks_and_nothing_is_lost(tokenizer: Tokenizer, thought: str, answer: str) -> None:
    ids = ids_of(tokenizer, f"<|channel>thought\n{thought}\n<channel|>{answer}<turn|>{thought}")
    assert parse(tokenizer, ids) == Reply(thought, answer, closed=True)
