"""Markdown printed piece by piece against the same text printed at once."""

from __future__ import annotations

import io
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.markdown import Markdown

from dgemma_cli.terminal.entries import Commit
from dgemma_cli.terminal.markdown_flow import MarkdownFlow, finished

BLOCKS = st.sampled_from(
    [
        "A paragraph\nof two lines.",
        "# Heading",
        "- a\n- b",
        "1. one\n\n2. two",
        "3. three\n   more",
        "```python\nx = 1\n\n\ny = 2\n```",
        "~~~\n``` no end\n\ntext\n~~~",
        "> quoted\n> more",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "    indented code",
        "Text with **bold** words.",
    ]
)


def render(text: str) -> str:
    screen = io.StringIO()
    Console(file=screen, width=40, force_terminal=True).print(Markdown(text, hyperlinks=False))
    return screen.getvalue()


def commit(text: str, thinking: str = "") -> Commit:
    return Commit(0, text, thinking, 1, 1, True, 1)


def written(pieces: list[str]) -> list[str]:
    parts: list[str] = []
    flow = MarkdownFlow(render, parts.append, None)
    for piece in pieces:
        flow.show(commit(piece))
    flow.close()
    return parts


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n") if line.strip()]


@settings(max_examples=150, deadline=None)
@given(blocks=st.lists(BLOCKS, min_size=1, max_size=6), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_pieces_read_like_the_whole(blocks: list[str], cuts: list[int]) -> None:
    text = "\n\n".join(blocks)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    assert lines("".join(written(pieces))) == lines(render(text))


@settings(max_examples=150, deadline=None)
@given(blocks=st.lists(BLOCKS, min_size=1, max_size=6), more=BLOCKS)
def test_what_is_finished_stays_finished(blocks: list[str], more: str) -> None:
    text = "\n\n".join(blocks)
    for end in range(len(text)):
        assert finished(text[:end]) <= finished(text + "\n\n" + more)


def test_a_paragraph_is_printed_when_the_next_one_begins() -> None:
    parts: list[str] = []
    flow = MarkdownFlow(render, parts.append, None)
    flow.show(commit("One **bold**.\n"))
    flow.show(commit("\n"))
    assert parts == []
    flow.show(commit("Two"))
    assert len(parts) == 1
    assert parts[0].endswith(".\n")
    flow.close()
    assert parts[1] == "\nTwo\n"


def test_thoughts_come_in_lines_and_before_the_answer() -> None:
    said: list[str] = []
    flow = MarkdownFlow(render, lambda text: said.append(f"answer {text}"), None, lambda text: said.append(text))
    flow.show(commit("", "first\nsec"))
    flow.show(commit("", "ond"))
    flow.show(commit("Yes."))
    flow.close()
    assert said == ["first\n", "second\n", "answer Yes.\n"]
