"""Styled text wrapped to the width of a terminal, by words, counting cells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from rich.cells import cell_len, get_character_cell_size

from dgemma_cli.terminal.palette import styled

Run: TypeAlias = tuple[str, str]  # text, SGR style

_ATOM = re.compile(r"\n| +|[^ \n]+")
TAB = "    "


def wrap(runs: Iterable[Run], width: int) -> list[str]:
    """Lines of at most ``width`` cells with their escape codes. Words longer than a line are broken, and so is text
    of wide characters, which has no words to break at. At least one line, maybe empty.
    """
    wrapper = _Wrapper(max(1, width))
    for text, style in runs:
        for atom in _ATOM.findall(text.replace("\t", TAB)):
            wrapper.add(atom, style)
    return wrapper.finish()


class _Wrapper:
    def __init__(self, width: int) -> None:
        self._width = width
        self._lines: list[str] = []
        self._line: list[Run] = []
        self._used = 0
        self._word: list[Run] = []
        self._word_width = 0
        self._paragraph_start = True

    def add(self, atom: str, style: str) -> None:
        if atom == "\n":
            self._end_word()
            self._end_line()
        elif atom[0] == " ":
            self._end_word()
            space = min(len(atom), self._width - self._used)
            if space and (self._used or self._paragraph_start):
                self._line.append((" " * space, style))
                self._used += space
        elif (cells := cell_len(atom)) != len(atom):
            self._end_word()
            self._break(atom, style)
        else:
            self._word.append((atom, style))
            self._word_width += cells

    def finish(self) -> list[str]:
        self._end_word()
        self._end_line()
        return self._lines

    def _end_word(self) -> None:
        if not self._word:
            return
        if self._used + self._word_width > self._width and self._used and self._word_width <= self._width:
            self._end_line(soft=True)
        if self._used + self._word_width > self._width:
            for text, style in self._word:
                self._break(text, style)
        else:
            self._line.extend(self._word)
            self._used += self._word_width
        self._word, self._word_width = [], 0

    def _break(self, text: str, style: str) -> None:
        """Place text character by character."""
        start = 0
        for index, character in enumerate(text):
            cells = get_character_cell_size(character)
            if self._used + cells > self._width and self._used:
                self._line.append((text[start:index], style))
                self._end_line(soft=True)
                start = index
            self._used += cells
        self._line.append((text[start:], style))

    def _end_line(self, soft: bool = False) -> None:
        self._lines.append("".join(styled(text, style) for text, style in _joined(self._line)))
        self._line, self._used = [], 0
        self._paragraph_start = not soft


def _joined(line: list[Run]) -> Iterable[Run]:
    """Neighbours of one style as one run, to spare escape codes."""
    text, current = "", ""
    for part, style in line:
        if style != current:
            if text:
                yield text, current
            text, current = "", style
        text += part
    if text:
        yield text, current


def crop(text: str, width: int, ellipsis: str = "") -> str:
    """The beginning of one plain line that fits in ``width`` cells."""
    if cell_len(text) <= width:
        return text
    room = max(0, width - cell_len(ellipsis))
    used = 0
    for index, character in enumerate(text):
        used += get_character_cell_size(character)
        if used > room:
            return text[:index] + ellipsis[: max(0, width)]
    return text


def crop_left(text: str, width: int, ellipsis: str = "") -> str:
    """The end of one plain line that fits in ``width`` cells."""
    if cell_len(text) <= width:
        return text
    room = max(0, width - cell_len(ellipsis))
    used = 0
    for index in range(len(text) - 1, -1, -1):
        used += get_character_cell_size(text[index])
        if used > room:
            return ellipsis[: max(0, width)] + text[index + 1 :]
    return text
