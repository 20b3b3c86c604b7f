from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.terminal.untrusted import escape_controls, visible


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    for character in visible(text):
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        assert character not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"


def test_what_people_write_stays() -> None:
    text = "[bold]x[/bold] :smile: 世界 🎉 é \u200d \u200f שלום\n\tend"
    assert visible(text) == text


def test_newlines_of_other_systems_become_newlines() -> None:
    assert visible("a\r\nb\rc") == "a\nb\nc"


@given(st.text())
def test_json_stays_exact_and_harmless(text: str) -> None:
    line = escape_controls(json.dumps(text, ensure_ascii=False))
    assert json.loads(line) == text
    assert visible(line) == line
