from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from scripted import LANGUAGE, script, spell

from dgemma_cli.terminal.canvas import State, settled_share, shown_length, states
from dgemma_cli.terminal.color_by import ColorBy
from dgemma_cli.terminal.entries import Block, Step
from dgemma_cli.terminal.frame import Scene, draw, masked, sparkline
from dgemma_cli.terminal.narrator import Narrator
from dgemma_cli.terminal.pace import Pace
from dgemma_cli.terminal.palette import Palette
from dgemma_cli.terminal.untrusted import visible

PALETTE = Palette(color=True, unicode=True)
_CODES = re.compile(r"\x1b\[[0-9;]*m")


def step(draft: str, accepted: str, entropy: float = 0.1, number: int = 1, changed: str = "", end: int = -1) -> Step:
    flags = tuple(flag == "1" for flag in accepted)
    return Step(
        block=0,
        step=number,
        draft=tuple(draft),
        accepted=flags,
        changed=tuple(flag == "1" for flag in changed or "0" * len(draft)),
        entropy=(entropy,) * len(draft),
        thought=(False,) * len(draft),
        end=end if end >= 0 else len(draft),
    )


def scene_after(text: str, events: int, thinking: str = "", canvas: int = 8) -> Scene:
    narrator, scene = Narrator(LANGUAGE), Scene()
    for _, event in zip(range(events), script(spell(text, thinking), canvas=canvas, steps=4), strict=False):
        scene.feed(narrator.tell(event))
    return scene


def plain(lines: list[str]) -> list[str]:
    return [_CODES.sub("", line) for line in lines]


def test_states_of_positions() -> None:
    before = step("ab??", "1100")
    now = step("axcd", "1110", number=2, changed="0111")
    assert states(now, before) == [State.SETTLED, State.ACCEPTED, State.ACCEPTED, State.DRAFT]
    assert states(step("a", "0", entropy=5.0), None) == [State.NOISE]
    assert settled_share(now, states(now, before)) == 0.25


def test_what_follows_a_trusted_end_is_not_shown() -> None:
    trusted = step("abXY", "0010", end=2)
    assert shown_length(trusted, states(trusted, None)) == 2
    noise = step("abXY", "0000", entropy=5.0, end=2)
    assert shown_length(noise, states(noise, None)) == 4


def test_noise_keeps_the_shape_of_words() -> None:
    assert masked(" word", "░") == " ░░░░"
    assert masked("\n", "░") == masked("", "░") == masked(" ", "░") == "░"


def test_a_canvas_is_drawn_by_state() -> None:
    scene = scene_after("abcdefgh", 3)
    body, status = draw(scene, PALETTE, 80, 24, Pace())
    assert body == "\x1b[1;32mab\x1b[0m\x1b[2m░░░░░░\x1b[0m"
    assert "block 1 · step 1/48 · 0% settled · █" in status


def test_without_colour_there_is_no_colour() -> None:
    scene = scene_after("abcdefgh", 4)
    drawn = "".join(draw(scene, Palette(color=False, unicode=True), 80, 24, Pace()))
    codes = {code for group in re.findall(r"\x1b\[([0-9;]*)m", drawn) for code in group.split(";")}
    assert codes <= {"0", "1", "2", "4"}


def test_without_unicode_there_is_only_ascii() -> None:
    drawn = "".join(draw(scene_after("abc", 3), Palette(color=True, unicode=False), 80, 24, Pace(0.1, 9)))
    assert drawn.isascii()


def test_entropy_colours() -> None:
    heat = Palette(color=True, unicode=True, by=ColorBy.ENTROPY)
    assert [heat.style(State.DRAFT, False, nats) for nats in (0.001, 0.05, 0.2, 1.0, 5.0)] == [
        "",
        "36",
        "32",
        "33",
        "31",
    ]


@pytest.mark.parametrize("columns", [3, 20, 80, 500])
@pytest.mark.parametrize("rows", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("unfold", [True, False])
def test_a_frame_never_fills_the_screen(columns: int, rows: int, unfold: bool) -> None:
    text = "many words, 世界, 🎉🎉🎉, and\nlines\n" * 20
    for events in (1, 2, 3, 6, 40, 60):
        scene = scene_after(text, events, thinking="deep " * 30, canvas=200)
        lines = plain(draw(scene, PALETTE, columns, rows, Pace(0.01, 1000.0), unfold))
        assert len(lines) <= max(1, rows - 3)
        assert all(cell_len(line) < columns for line in lines)


def test_the_newest_lines_are_the_ones_kept() -> None:
    scene = Scene(text="\n".join(f"line {number}" for number in range(50)), block=Block(0, 4, 48))
    lines = plain(draw(scene, PALETTE, 80, 12, Pace()))
    assert lines[-2] == "line 49░░░░"
    assert lines[0] == "line 42"


def test_thinking_is_one_line_unless_unfolded() -> None:
    scene = scene_after("yes", 8, thinking="one two three four five six", canvas=32)
    folded = plain(draw(scene, PALETTE, 40, 24, Pace()))
    assert folded[0].startswith("thinking · …") or folded[0] == "thinking · one two three four five six"
    unfolded = plain(draw(scene, PALETTE, 20, 24, Pace(), unfold=True))
    assert "one two three four" in unfolded[0]
    assert len(unfolded) > len(folded)


def test_a_narrow_status_drops_parts_from_the_least_important() -> None:
    scene = scene_after("abcdefgh", 4)
    pace = Pace(0.012, 1234.0)
    wide = plain(draw(scene, PALETTE, 200, 24, pace))[-1]
    assert wide == "block 1 · step 2/48 · 25% settled · █▆ · 1,234 tok/s · 12 ms/step"
    narrow = plain(draw(scene, PALETTE, 40, 24, pace))[-1]
    assert narrow == "block 1 · step 2/48 · 25% settled · █▆"
    tiny = plain(draw(scene, PALETTE, 27, 24, pace))[-1]
    assert tiny == "step 2/48 · 25% settled"
    assert plain(draw(scene, PALETTE, 20, 24, pace))[-1] == "2/48 · 25%"


def test_a_long_wait_is_counted() -> None:
    assert plain(draw(Scene("loading nano", waited=1), PALETTE, 80, 24, Pace())) == ["loading nano…"]
    assert plain(draw(Scene("loading nano", waited=9), PALETTE, 80, 24, Pace())) == ["loading nano… 9 s"]
    assert plain(draw(Scene("loading nano", waited=9), PALETTE, 12, 24, Pace())) == ["loading nan"]


def test_sparkline_of_nothing_and_of_zeros() -> None:
    assert sparkline([], PALETTE) == ""
    assert sparkline([0.0, 0.0], PALETTE) == "▁▁"


@given(st.text(max_size=60), st.integers(2, 60), st.integers(4, 20))
def test_nothing_of_the_models_text_steers_the_terminal(text: str, columns: int, rows: int) -> None:
    nasty = "\x1b[2J\x07\x9b31m\r\u202e\x00" + text + "\x1b]0;t\x07"
    for events in (3, 6, 9):
        for line in draw(scene_after(nasty, events, thinking=nasty), PALETTE, columns, rows, Pace(), unfold=True):
            left = _CODES.sub("", line)
            assert left == visible(left)
            assert "\n" not in left
