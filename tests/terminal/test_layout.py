from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dgemma_cli.terminal.layout import crop, crop_left, wrap

_CODES = re.compile(r"\x1b\[[0-9;]*m")
WORDS = st.text("ab 世é́🎉\n-", max_size=60)


def plain(lines: list[str]) -> list[str]:
    return [_CODES.sub("", line) for line in lines]


def test_breaks_at_words() -> None:
    assert plain(wrap([("the quick brown fox", "")], 10)) == ["the quick ", "brown fox"]


def test_a_word_may_span_styles() -> None:
    assert wrap([("aaa bb", ""), ("bb", "1")], 6) == ["aaa ", "bb\x1b[1mbb\x1b[0m"]


def test_long_words_and_wide_characters_break_anywhere() -> None:
    assert plain(wrap([("abcdefgh", "")], 3)) == ["abc", "def", "gh"]
    assert plain(wrap([("世界世界", "")], 5)) == ["世界", "世界"]


def test_newlines_and_indents_stay() -> None:
    assert plain(wrap([("a\n\n  b\tc", "")], 20)) == ["a", "", "  b    c"]


@given(st.lists(st.tuples(WORDS, st.sampled_from(["", "1", "2"])), max_size=6), st.integers(2, 20))
def test_no_line_is_too_wide_and_no_character_lost(runs: list[tuple[str, str]], width: int) -> None:
    lines = plain(wrap(runs, width))
    assert all(sum(map(cell_len, line)) <= width for line in lines)
    text = "".join(text for text, _ in runs)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)
    assert len(lines) >= text.count("\n") + 1


@given(st.text("ab世🎉", max_size=20), st.integers(0, 10))
def test_cropping_keeps_an_end_within_the_width(text: str, width: int) -> None:
    assert cell_len(crop(text, width, "…")) <= width
    assert cell_len(crop_left(text, width, "…")) <= width
    if cell_len(text) > width > 3:
        assert crop(text, width, "…").endswith("…")
        assert text.startswith(crop(text, width, "…")[:-1])
        assert text.endswith(crop_left(text, width, "…")[1:])
