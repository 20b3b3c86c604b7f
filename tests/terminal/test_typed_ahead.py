"""Keys typed while an answer is written."""

from __future__ import annotations

import os
import pty
import select
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgemma_cli.terminal.typed_ahead import typed_ahead


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    keyboard, tty = pty.openpty()
    yield keyboard, tty
    os.close(keyboard)
    os.close(tty)


def test_keys_are_not_seen_and_enter_stays_enter(terminal: tuple[int, int]) -> None:
    keyboard, tty = terminal
    before = termios.tcgetattr(tty)
    with typed_ahead(tty):
        os.write(keyboard, b"next\r")
        assert not select.select([keyboard], [], [], 0.1)[0]  # no echo
        assert os.read(tty, 10) == b"next\r"
    assert termios.tcgetattr(tty) == before


def test_what_is_no_terminal_is_left_alone() -> None:
    with Path(os.devnull).open() as stream, typed_ahead(stream.fileno()):
        pass
