"""A block of lines redrawn in place at the bottom of what a terminal shows, and gone without a trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

HIDE_CURSOR = "\x1b[?25l"
SHOW_CURSOR = "\x1b[?25h"
_NO_WRAP = "\x1b[?7l"
_WRAP = "\x1b[?7h"
_BEGIN = "\x1b[?2026h"  # synchronised update: terminals that know it show the frame at once, others ignore it
_END = "\x1b[?2026l"
# This line, then all below it. Not in one go: tmux keeps a screen that is cleared from its upper left corner.
ERASE = "\r\x1b[0m\x1b7\x1b[K\x1b[B\x1b[J\x1b8"
RESTORE = ERASE + _WRAP + SHOW_CURSOR  # from any state of a painter back to a clean terminal

_FALLBACK = (80, 24)


class Painter:
    """Draws through ``write`` on a terminal of ``size()`` columns and rows.

    The cursor waits at the frame's upper left corner. So erasing needs no count of rows, which a resize would make
    wrong: terminals reflow long lines, and the cursor stays with its cell. Lines too long for the screen are cut by
    the terminal (wrapping is off while drawing), so a wrong guess at a character's width never costs a row.
    """

    def __init__(self, write: Callable[[str], None], size: Callable[[], tuple[int, int]]) -> None:
        self.size = size
        self._write = write
        self._drawn: list[str] = []
        self._size = (0, 0)

    @classmethod
    def on_terminal(cls, descriptor: int, encode: Callable[[str], bytes]) -> Painter:
        """One for the terminal behind a file descriptor. It is taken for 80 by 24 where it does not say."""

        def write(text: str) -> None:
            data = encode(text)
            while data:
                data = data[os.write(descriptor, data) :]

        def size() -> tuple[int, int]:
            try:
                columns, rows = os.get_terminal_size(descriptor)
            except OSError:
                return _FALLBACK
            return (columns or _FALLBACK[0], rows or _FALLBACK[1])

        return cls(write, size)

    @property
    def resized(self) -> bool:
        """The terminal is no longer as large as at the last paint."""
        return bool(self._drawn) and self.size() != self._size

    def paint(self, lines: list[str]) -> None:
        """Replace what is drawn. lines: styled text without newlines, fewer than the terminal has rows."""
        size = self.size()
        if lines == self._drawn and size == self._size:
            return
        change = self._change(lines, clear=size != self._size)
        # Noted before it is written: an interrupt may come right after, and then ``erase`` must know of it.
        self._drawn = list(lines)
        self._size = size
        self._write(_BEGIN + change + _END)

    def erase(self) -> None:
        """Take the frame away and give the terminal back: cursor shown, wrapping on, plain colours."""
        if self._drawn:
            self._write(RESTORE)
        self._drawn = []

    def forget(self) -> None:
        """Take nothing of what was drawn for granted: the next paint writes every line."""
        self._size = (0, 0)

    def rescue(self) -> None:
        """Restore the terminal before the process ends at once."""
        with suppress(OSError):
            self._write(RESTORE)

    def _change(self, lines: list[str], clear: bool) -> str:
        parts = [HIDE_CURSOR, _NO_WRAP, ERASE if clear else "\r"]
        for index, line in enumerate(lines):
            if index:
                parts.append("\r\n")
            same = not clear and index and index < len(self._drawn) and self._drawn[index] == line
            if not same:  # the first line is always written: the keyboard's echo lands there
                parts.append(f"{line}\x1b[0m\x1b[K")
        if not clear and len(self._drawn) > len(lines):
            parts.append("\r\n\x1b[J\x1b[A")
        if len(lines) > 1:
            parts.append(f"\x1b[{len(lines) - 1}A")
        parts.append("\r")
        return "".join(parts)
