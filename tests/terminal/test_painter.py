"""The painter against a terminal emulator: what it draws, what it leaves, and what a resize does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.terminal import painter as painter_module
from dgemma_cli.terminal.painter import Painter

LINES = st.lists(st.text("abc ", max_size=30), min_size=1, max_size=6)


@dataclass
class Screen:
    """A screen of pyte with a painter on it, connected by a pipe."""

    columns: int = 20
    rows: int = 10
    written: int = 0
    pipe: tuple[int, int] = field(default_factory=os.pipe)

    def __post_init__(self) -> None:
        self.screen = pyte.HistoryScreen(self.columns, self.rows, history=1000, ratio=0.5)
        self.screen.set_mode(pyte.modes.LNM)
        self.stream = pyte.Stream(self.screen)
        self.painter = Painter(self.pipe[1], str.encode)
        self.painter.size = lambda: (self.screen.columns, self.screen.lines)  # type: ignore[method-assign]

    def feed(self, text: str) -> None:
        self.stream.feed(text)

    def sync(self) -> list[str]:
        """What is on the screen once everything written is drawn, without blank lines at the end."""
        os.set_blocking(self.pipe[0], False)
        try:
            while data := os.read(self.pipe[0], 65536):
                self.written += len(data)
                self.stream.feed(data.decode())
        except BlockingIOError:
            pass
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def scrolled_away(self) -> int:
        return len(self.screen.history.top)


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    for end in made.pipe:
        os.close(end)


def test_a_frame_is_drawn_and_taken_away(screen: Screen) -> None:
    screen.feed("$ dgemma\n")
    screen.painter.paint(["one", "two"])
    assert screen.sync() == ["$ dgemma", "one", "two"]
    assert screen.screen.cursor.hidden
    screen.painter.paint(["only"])
    assert screen.sync() == ["$ dgemma", "only"]
    screen.painter.erase()
    assert screen.sync() == ["$ dgemma"]
    assert (screen.screen.cursor.y, screen.screen.cursor.x, screen.screen.cursor.hidden) == (1, 0, False)
    assert pyte.modes.DECAWM in screen.screen.mode


def cut(line: str) -> str:
    """A line too long for the screen: its beginning, and its last character in the last column."""
    return (line if len(line) <= 20 else line[:19] + line[-1]).rstrip()


@given(st.lists(LINES, min_size=1, max_size=8), st.integers(0, 12))
def test_any_frames_leave_nothing(frames: list[list[str]], before: int) -> None:
    screen = Screen()
    try:
        screen.feed("x\n" * before)
        for frame in frames:
            screen.painter.paint(frame)
            shown = screen.sync()
            top = screen.screen.cursor.y
            drawn = [line.rstrip() for line in screen.screen.display[top : top + len(frame)]]
            assert drawn == [cut(line) for line in frame]
            assert len(shown) <= top + len(frame)
        screen.painter.erase()
        assert screen.sync() == (["x"] * before)[-screen.screen.cursor.y :][: screen.screen.cursor.y]
        assert screen.scrolled_away + screen.screen.cursor.y == before
    finally:
        for end in screen.pipe:
            os.close(end)


def test_the_keyboards_echo_on_the_first_line_is_painted_over(screen: Screen) -> None:
    screen.painter.paint(["one", "two"])
    screen.sync()
    screen.feed("^C")
    screen.painter.paint(["one", "TWO"])
    assert screen.sync() == ["one", "TWO"]


def test_a_resize_draws_anew_from_the_same_corner(screen: Screen) -> None:
    screen.feed("$ dgemma\n")
    screen.painter.paint(["a" * 15, "b" * 15])
    screen.sync()
    screen.screen.resize(10, 8)
    assert screen.painter.resized
    screen.painter.paint(["c" * 8, "d"])
    assert screen.sync() == ["$ dgemma"[:8], "cccccccc", "d"]
    assert not screen.painter.resized


def test_the_same_frame_costs_nothing(screen: Screen) -> None:
    screen.painter.paint(["one", "two"])
    screen.sync()
    written = screen.written
    screen.painter.paint(["one", "two"])
    screen.sync()
    assert screen.written == written


def test_after_a_stop_every_line_is_written_again(screen: Screen) -> None:
    screen.painter.paint(["one", "two"])
    screen.sync()
    screen.feed("\x1b[2J\x1b[H")
    screen.painter.forget()
    screen.painter.paint(["one", "two"])
    assert screen.sync() == ["one", "two"]


def test_the_size_of_what_is_no_terminal() -> None:
    reading, writing = os.pipe()
    try:
        assert Painter(writing, str.encode).size() == painter_module._FALLBACK
    finally:
        os.close(reading)
        os.close(writing)
