"""The painter against a terminal emulator: what it draws, what it leaves, and what a resize does."""

from __future__ import annotations

import os

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.terminal.painter import Painter

LINES = st.lists(st.text("abc ", max_size=30), min_size=1, max_size=6)


class Screen:
    """A screen of pyte with a painter on it."""

    def __init__(self, columns: int = 20, rows: int = 10) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=1000, ratio=0.5)
        self.screen.set_mode(pyte.modes.LNM)
        self.stream = pyte.Stream(self.screen)
        self.written = 0
        self.painter = Painter(self.feed, lambda: (self.screen.columns, self.screen.lines))

    def feed(self, text: str) -> None:
        self.written += len(text)
        self.stream.feed(text)

    def lines(self) -> list[str]:
        """What is on the screen, without blank lines at the end."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def scrolled_away(self) -> int:
        return len(self.screen.history.top)


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_a_frame_is_drawn_and_taken_away(screen: Screen) -> None:
    screen.feed("$ dgemma\n")
    screen.painter.paint(["one", "two"])
    assert screen.lines() == ["$ dgemma", "one", "two"]
    assert screen.screen.cursor.hidden
    screen.painter.paint(["only"])
    assert screen.lines() == ["$ dgemma", "only"]
    screen.painter.erase()
    assert screen.lines() == ["$ dgemma"]
    assert (screen.screen.cursor.y, screen.screen.cursor.x, screen.screen.cursor.hidden) == (1, 0, False)
    assert pyte.modes.DECAWM in screen.screen.mode


def cut(line: str) -> str:
    """A line too long for the screen: its beginning, and its last character in the last column."""
    return (line if len(line) <= 20 else line[:19] + line[-1]).rstrip()


@given(st.lists(LINES, min_size=1, max_size=8), st.integers(0, 12))
def test_any_frames_leave_nothing(frames: list[list[str]], before: int) -> None:
    screen = Screen()
    screen.feed("x\n" * before)
    for frame in frames:
        screen.painter.paint(frame)
        top = screen.screen.cursor.y
        drawn = [line.rstrip() for line in screen.screen.display[top : top + len(frame)]]
        assert drawn == [cut(line) for line in frame]
        assert len(screen.lines()) <= top + len(frame)
    screen.painter.erase()
    assert screen.lines() == (["x"] * before)[-screen.screen.cursor.y :][: screen.screen.cursor.y]
    assert screen.scrolled_away + screen.screen.cursor.y == before


def test_the_keyboards_echo_on_the_first_line_is_painted_over(screen: Screen) -> None:
    screen.painter.paint(["one", "two"])
    screen.feed("^C")
    screen.painter.paint(["one", "TWO"])
    assert screen.lines() == ["one", "TWO"]


def test_a_resize_draws_anew_from_the_same_corner(screen: Screen) -> None:
    screen.feed("$ dgemma\n")
    screen.painter.paint(["a" * 15, "b" * 15])
    screen.screen.resize(10, 8)
    assert screen.painter.resized
    screen.painter.paint(["c" * 8, "d"])
    assert screen.lines() == ["$ dgemma"[:8], "cccccccc", "d"]
    assert not screen.painter.resized


def test_the_same_frame_costs_nothing(screen: Screen) -> None:
    screen.painter.paint(["one", "two"])
    written = screen.written
    screen.painter.paint(["one", "two"])
    assert screen.written == written


def test_after_a_stop_every_line_is_written_again(screen: Screen) -> None:
    screen.painter.paint(["one", "two"])
    screen.feed("\x1b[2J\x1b[H")
    screen.painter.forget()
    screen.painter.paint(["one", "two"])
    assert screen.lines() == ["one", "two"]


def test_the_size_of_what_is_no_terminal() -> None:
    reading, writing = os.pipe()
    try:
        painter = Painter.on_terminal(writing, str.encode)
        assert painter.size() == (80, 24)
        painter.paint(["one"])
        assert b"one" in os.read(reading, 1000)
    finally:
        os.close(reading)
        os.close(writing)
