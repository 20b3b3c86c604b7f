"""An answer rendered as markdown while it is written: what is finished is printed, the rest waits in the view."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from dgemma_cli.terminal.entries import Commit, Entry, Finish
from dgemma_cli.terminal.live import LiveView

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


class MarkdownFlow:
    """A sink that renders an answer piece by piece into the scrollback.

    render: markdown as lines for the terminal. write: writes them there. thinking: writes thoughts, as they are,
    where they are wanted.
    """

    def __init__(
        self,
        render: Callable[[str], str],
        write: Callable[[str], None],
        view: LiveView | None,
        thinking: Callable[[str], None] | None = None,
    ) -> None:
        self._render = render
        self._write = write
        self._view = view
        self._thinking = thinking
        self._thought = ""
        self._waiting = ""
        self._begun = False

    def show(self, entry: Entry) -> None:
        if isinstance(entry, Commit):
            self._think(entry.thinking, whole=bool(entry.text))
            self._waiting += entry.text
        elif isinstance(entry, Finish):
            self._waiting += entry.rest
        else:
            return
        place = finished(self._waiting)
        ready, self._waiting = self._waiting[:place], self._waiting[place:]
        write = partial(self._print, ready)
        if not ready.strip():
            return
        if self._view is None:
            write()
        else:
            self._view.print_above(write, text=self._waiting)

    def _think(self, text: str, whole: bool) -> None:
        """Write complete lines of thoughts; whole: all there is, and end the line."""
        if self._thinking is None:
            return
        self._thought += text
        if whole and self._thought:
            self._thought += "\n"
        lines, newline, self._thought = self._thought.rpartition("\n")
        if not newline:
            return
        write = partial(self._thinking, lines + newline)
        if self._view is None:
            write()
        else:
            self._view.print_above(write, thinking=self._thought)

    def close(self) -> None:
        self._think("", whole=True)
        if self._waiting.strip():
            self._print(self._waiting)
        self._waiting = ""

    def _print(self, text: str) -> None:
        # The renderer fills lines with spaces, which a narrower terminal would wrap, and begins a list with an empty
        # line, whatever stands before.
        lines = [line.rstrip(" ") for line in self._render(text).strip("\n").split("\n")]
        self._write("\n" * self._begun + "\n".join(lines) + "\n")
        self._begun = True


def finished(text: str) -> int:
    """How much of ``text`` nothing can change that may follow: up to the last blank line before a line that begins a
    new block at the margin, outside of a code fence.
    """
    place = position = 0
    fence = ""
    blank = False
    for line in text.splitlines(keepends=True):
        if not fence and blank and line.strip() and not line[0].isspace() and not _continues(line):
            place = position
        opening = _FENCE.match(line)
        if opening and not fence:
            fence = opening[1]
        elif opening and opening[1].startswith(fence) and not opening[2].strip():
            fence = ""
        blank = not line.strip()
        position += len(line)
    return place


def _continues(line: str) -> bool:
    """The line may be the next item of the list before it."""
    return bool(re.match(r"([-*+]|\d{1,9}[.)])(\s|$)", line)) or bool(re.fullmatch(r"[-*+\d.)]+", line))
