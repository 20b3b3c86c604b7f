"""A film laid out on a terminal of a given size: rows of styled spans, for the formats that draw pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from rich.cells import cell_len

from dgemma_cli.terminal.film import Film, Shot, command_line
from dgemma_cli.terminal.frame import draw
from dgemma_cli.terminal.layout import crop
from dgemma_cli.terminal.palette import Palette, styled
from dgemma_cli.terminal.untrusted import visible

LAST_SECONDS = 4.0  # how long the answer stays before a picture begins again

_CODE = re.compile(r"\x1b\[([0-9;]*)m")


@dataclass(frozen=True, slots=True)
class Span:
    """Text of one look. column, cells: where it begins and how much room it takes. color: 31 to 36 as in SGR, or 0."""

    text: str
    column: int
    cells: int
    bold: bool = False
    dim: bool = False
    underline: bool = False
    color: int = 0


Row: TypeAlias = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """The size of the terminal a film is laid out for, and how positions look."""

    columns: int
    rows: int
    palette: Palette

    def prompt(self, film: Film) -> str:
        """The command line above the picture."""
        text = crop(visible(command_line(film.start)), self.columns - 3, self.palette.ellipsis)
        return styled("$ ", "2") + styled(text, "1")

    def lines(self, shot: Shot) -> list[str]:
        """The lines of a shot, with escape codes."""
        return draw(shot.scene, self.palette, self.columns, self.rows, shot.pace)

    def picture(self, film: Film, shot: Shot) -> list[Row]:
        """The rows of a shot below its command line."""
        return [spans(line) for line in (self.prompt(film), *self.lines(shot))]


def seconds(film: Film) -> list[float]:
    """How long each shot of a film that is shown again and again stays."""
    stays = [shot.seconds for shot in film.shots]
    return [*stays[:-1], max(stays[-1], LAST_SECONDS)] if stays else []


def spans(line: str) -> Row:
    """Read the escape codes that ``palette.styled`` wrote."""
    found = []
    column = 0
    codes: list[int] = []
    for index, part in enumerate(_CODE.split(line)):
        if index % 2:
            codes = [int(code) for code in part.split(";") if code]
        elif part:
            cells = cell_len(part)
            color = next((code for code in codes if 31 <= code <= 36), 0)
            found.append(Span(part, column, cells, 1 in codes, 2 in codes, 4 in codes, color))
            column += cells
    return tuple(found)
