"""A process on a pseudo-terminal, and an emulator that shows what a person would see of it, scrollback included."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pexpect
import pyte
from wcwidth import wcwidth

SCRIPTED = Path(__file__).parent / "scripted_dgemma.py"
COMMAND_LINE = "$ dgemma"


class Terminal:
    """``dgemma`` with a scripted model on a terminal of the given size. The screen begins with a command line."""

    def __init__(
        self,
        *arguments: str,
        text: str = "Hello, world.",
        columns: int = 80,
        rows: int = 24,
        canvas: int = 64,
        steps: int = 4,
        step_ms: int = 20,
        variables: Mapping[str, str] | None = None,
        **script: str,
    ) -> None:
        settings = {"TEXT": json.dumps(text), "CANVAS": str(canvas), "STEPS": str(steps), "STEP_MS": str(step_ms)}
        environment = {
            **{key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")},
            "TERM": "xterm-256color",
            "PYTHONUTF8": "1",
            **{f"SCRIPT_{key.upper()}": value for key, value in {**settings, **script}.items()},
            **(variables or {}),
        }
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.stream.feed(COMMAND_LINE.encode() + b"\r\n")
        self.process = pexpect.spawn(
            sys.executable,
            [str(SCRIPTED), *arguments],
            env=environment,
            dimensions=(rows, columns),
            timeout=30,
        )
        self.process.delaybeforesend = None
        self.process.ptyproc.delayafterclose = 0.0

    def read(self, timeout: float = 0.05) -> bool:
        """Take in what the process wrote. False once it has closed its side."""
        if not select.select([self.process.child_fd], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.process.child_fd, 65536)
        except OSError:  # how Linux says that nobody has the terminal open any more
            return False
        self.raw += data
        self.stream.feed(data)
        return True

    def until(self, seen: Callable[[list[str]], bool], seconds: float = 20) -> None:
        """Read until the screen satisfies ``seen``."""
        end = time.monotonic() + seconds
        while not seen(self.lines()):
            assert self.read(), f"the process ended; the screen: {self.lines()}"
            assert time.monotonic() < end, f"never seen; the screen: {self.lines()}"

    def finish(self, each: Callable[[list[str]], None] = lambda _: None) -> int:
        """Read to the end, calling ``each`` with the lines after every read. Returns the exit code."""
        end = time.monotonic() + 60
        while self.read():
            each(self.lines())
            if time.monotonic() > end:
                self.process.close(force=True)
                raise AssertionError(f"the process does not end; the screen: {self.lines()}")
        self.process.close()
        status = self.process.exitstatus
        return status if status is not None else 128 + (self.process.signalstatus or 0)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        self.process.setwinsize(rows, columns)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.signal(signal.SIGINT)

    def lines(self) -> list[str]:
        """Scrollback and screen, without blank lines at the end."""
        history = ["".join(_characters(line, self.screen.columns)).rstrip() for line in self.screen.history.top]
        screen = [
            "".join(_characters(self.screen.buffer[y], self.screen.columns)).rstrip() for y in range(self.screen.lines)
        ]
        found = history + screen
        while found and not found[-1]:
            found.pop()
        return found

    def is_clean(self) -> bool:
        """Cursor shown at a line's start, wrapping on, plain attributes: ready for a shell's prompt."""
        cursor = self.screen.cursor
        plain = (cursor.attrs.fg, cursor.attrs.bold, cursor.attrs.underscore) == ("default", False, False)
        return not cursor.hidden and cursor.x == 0 and pyte.modes.DECAWM in self.screen.mode and plain


def _characters(line: Mapping[int, pyte.screens.Char], columns: int) -> list[str]:
    return [line[x].data for x in range(columns)]


def soft_wrapped(text: str, columns: int) -> list[str]:
    """The rows on which a terminal puts ``text``."""
    rows = []
    for line in text.split("\n"):
        row, used = "", 0
        for character in line:
            cells = max(0, wcwidth(character))
            if used + cells > columns:
                rows.append(row.rstrip())
                row, used = "", 0
            row, used = row + character, used + cells
        rows.append(row.rstrip())
    return rows
