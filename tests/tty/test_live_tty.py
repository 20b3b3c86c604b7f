"""The live view on real pseudo-terminals: what is seen on the way, and what is left."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from emulated import COMMAND_LINE, Terminal, soft_wrapped

PARAGRAPHS = (
    "Text crystallises out of noise, a block at a time, and every block is many words long.\n\n"
    "The second paragraph is here so that something has to wrap, on a narrow screen more than once.\n"
    "- one\n- two\n- 世界 and 🎉 take two cells\n\nThe end."
)


@pytest.mark.parametrize(("rows", "columns"), [*itertools.product([5, 12, 40], [20, 80, 300])])
def test_the_answer_is_left_once_and_nothing_else(rows: int, columns: int) -> None:
    terminal = Terminal("run", "hi", text=PARAGRAPHS, columns=columns, rows=rows)
    statuses = []
    code = terminal.finish(lambda lines: statuses.append(any("/48 · " in line for line in lines)))
    assert code == 0
    assert any(statuses)
    assert terminal.lines() == [COMMAND_LINE, *soft_wrapped(PARAGRAPHS, columns)]
    assert terminal.is_clean()


def test_the_same_text_live_or_not() -> None:
    live = Terminal("run", "hi", "--live", text=PARAGRAPHS)
    still = Terminal("run", "hi", "--no-live", text=PARAGRAPHS)
    assert (live.finish(), still.finish()) == (0, 0)
    assert live.lines() == still.lines()
    assert b"\x1b" not in still.raw


def test_the_canvas_is_seen_settling() -> None:
    terminal = Terminal("run", "hi", text="Hello, world.", canvas=16, step_ms=150)
    terminal.until(lambda lines: len(lines) > 2 and lines[1] == "Hell░░░░░░░░░░░░")
    terminal.until(lambda lines: len(lines) > 2 and lines[1] == "Hello, worl░".replace("l░", "ld░") + "░░░")
    status = terminal.lines()[2]
    assert re.fullmatch(r"block 1 · step 3/48 · \d+% settled · █\S+ · \d+ ms/step", status)
    assert terminal.finish() == 0


def test_the_unfinished_line_waits_in_the_frame() -> None:
    terminal = Terminal("run", "hi", text="First line.\nSecond line and more.", canvas=16, step_ms=150)
    terminal.until(lambda lines: lines[1:2] == ["First line."] and lines[2:3] == ["Seco░░░░░░░░░░░░░░░░"])
    assert terminal.finish() == 0
    assert terminal.lines() == [COMMAND_LINE, "First line.", "Second line and more."]


def test_loading_is_shown_and_leaves_nothing() -> None:
    terminal = Terminal("run", "hi", "-m", "nano", load_ms="400")
    terminal.until(lambda lines: lines[1:] == ["loading nano…"])
    assert terminal.finish() == 0
    assert terminal.lines() == [COMMAND_LINE, "Hello, world."]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {}])
def test_no_color_leaves_the_view_without_colours(variables: dict[str, str]) -> None:
    arguments = [] if variables else ["--no-color"]
    terminal = Terminal("run", "hi", *arguments, text=PARAGRAPHS, variables=variables)
    assert terminal.finish() == 0
    assert b"settled" in terminal.raw
    assert not re.search(rb"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|9[0-7]|38|48)[;m]", terminal.raw)
    coloured = Terminal("run", "hi", text=PARAGRAPHS)
    coloured.finish()
    assert re.search(rb"\x1b\[1;32m", coloured.raw)


def test_a_dumb_terminal_gets_text_only() -> None:
    terminal = Terminal("run", "hi", "--stats", text=PARAGRAPHS, columns=300, variables={"TERM": "dumb"})
    assert terminal.finish() == 0
    assert b"\x1b" not in terminal.raw
    *answer, figures = terminal.lines()
    assert answer == [COMMAND_LINE, *soft_wrapped(PARAGRAPHS, 300)]
    assert "tokens/forward" in figures


def test_a_terminal_that_is_not_utf8_gets_ascii() -> None:
    variables = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    terminal = Terminal("run", "hi", text="a 世 z", variables=variables, step_ms=100)
    terminal.until(lambda lines: any("settled" in line for line in lines))
    assert terminal.finish() == 0
    assert terminal.raw.isascii()
    assert terminal.lines() == [COMMAND_LINE, "a ? z"]


def test_escapes_in_the_models_text_do_nothing() -> None:
    nasty = "a\x1b[2J\x1b]0;title\x07b\x9b31mc\rd\u202ee [bold]f[/] :smile:"
    terminal = Terminal("run", "hi", text=nasty, canvas=16)
    assert terminal.finish() == 0
    assert terminal.lines() == [COMMAND_LINE, "a[2J]0;titleb31mc", "de [bold]f[/] :smile:"]
    assert terminal.screen.title == ""


def test_thinking_is_folded_and_not_left() -> None:
    terminal = Terminal("run", "hi", text="yes", thinking="let me see " * 12, step_ms=100)
    terminal.until(lambda lines: len(lines) > 2 and lines[1].startswith("thinking · …"))
    assert terminal.finish() == 0
    assert terminal.lines() == [COMMAND_LINE, "yes"]


def test_thinking_unfolded_stands_before_the_answer() -> None:
    terminal = Terminal("run", "hi", "--show-thinking", text="yes", thinking="let me see\nand so", canvas=8)
    assert terminal.finish() == 0
    assert terminal.lines() == [COMMAND_LINE, "let me see", "and so", "yes"]


def test_a_resize_on_the_way_leaves_the_answer_once() -> None:
    """The emulator does not reflow; tmux does, in test_tmux.py."""
    terminal = Terminal("run", "hi", text=PARAGRAPHS, columns=120, rows=20, step_ms=60)
    terminal.until(lambda lines: any("block 2" in line for line in lines))
    terminal.resize(90, 24)
    terminal.until(lambda lines: any("block 3" in line for line in lines))
    terminal.resize(130, 30)
    assert terminal.finish() == 0
    assert terminal.lines() == [COMMAND_LINE, *PARAGRAPHS.split("\n")]
    assert terminal.is_clean()


def test_statistics_are_the_last_line() -> None:
    terminal = Terminal("run", "hi", "--stats", columns=300)
    assert terminal.finish() == 0
    assert terminal.lines()[:2] == [COMMAND_LINE, "Hello, world."]
    assert terminal.lines()[2].startswith("13 tokens, 1 block, 4 steps")
    assert len(terminal.lines()) == 3


def test_json_on_a_terminal_comes_after_the_view() -> None:
    terminal = Terminal("run", "hi", "--json", columns=500)
    assert terminal.finish() == 0
    assert b"settled" in terminal.raw
    assert json.loads(terminal.lines()[1])["text"] == "Hello, world."
    assert len(terminal.lines()) == 2


def test_the_view_goes_to_the_terminal_while_the_answer_goes_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "answer"
    terminal = Terminal("run", "hi", "-o", str(file), text=PARAGRAPHS)
    assert terminal.finish() == 0
    assert b"settled" in terminal.raw
    assert terminal.lines() == [COMMAND_LINE]
    assert file.read_text() == PARAGRAPHS + "\n"


def test_a_view_that_breaks_never_loses_the_answer() -> None:
    terminal = Terminal("run", "hi", text=PARAGRAPHS, break_view="1")
    assert terminal.finish() == 0
    expected = soft_wrapped(PARAGRAPHS, 80)
    assert terminal.lines()[: 1 + len(expected)] == [COMMAND_LINE, *expected]
    assert terminal.lines()[-1].startswith("the live view failed (broken on purpose)")
    assert terminal.is_clean()


def test_markdown_is_rendered_once_at_the_end() -> None:
    terminal = Terminal("run", "hi", "--markdown", text="some **bold** word\n\n- one\n- two", canvas=16)
    terminal.until(lambda lines: any("settled" in line for line in lines))
    assert terminal.finish() == 0
    assert [line for line in terminal.lines() if line] == [COMMAND_LINE, "some bold word", " • one", " • two"]
