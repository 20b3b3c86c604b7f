"""A film as an animated GIF, drawn with Pillow (the extra ``gif``)."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_cli.errors import DgemmaError, UsageError
from dgemma_cli.terminal.export.stage import Row, Span, Stage, seconds
from dgemma_cli.terminal.export.theme import BACKGROUND, COLORS, DIM_SHARE, FOREGROUND
from dgemma_cli.terminal.film import Film

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

_FONT_SIZE, _LINE, _PAD = 15, 20, 14  # pixels
_LEAST_MS = 20  # shorter ones are slowed down to 100 ms by most viewers
_COLORS = 32  # of the palette: a few colours and their way to the background

# Where systems keep a monospaced font, if fontconfig does not say.
_FONTS = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf",
    "/System/Library/Fonts/Menlo.ttc",
    "C:/Windows/Fonts/consola.ttf",
)
_BARS = "▁▂▃▄▅▆▇█"


def to_gif(film: Film, stage: Stage, font: Path | None) -> bytes:
    """The whole film, repeated without end. font: a TrueType file; None takes one of this system.

    Raises DgemmaError without Pillow, UsageError without a font.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise DgemmaError(
            "A GIF needs Pillow.", "pip install 'dgemma-cli[gif]'\nor make an .svg, .html or .cast"
        ) from None
    path = font or _system_font()
    try:
        face = ImageFont.truetype(str(path), _FONT_SIZE)
    except OSError:
        raise UsageError(f"{path} is no font that can be read.", "Name a TrueType file: --font FILE") from None
    cell = face.getlength("m")
    pictures = [stage.picture(film, shot) for shot in film.shots]
    width = round(stage.columns * cell) + 2 * _PAD
    height = max(len(picture) for picture in pictures) * _LINE + 2 * _PAD
    frames = []
    for picture in pictures:
        image = Image.new("RGB", (width, height), BACKGROUND)
        pen = ImageDraw.Draw(image)
        for number, row in enumerate(picture):
            _draw(pen, row, _PAD + number * _LINE, cell, face)
        frames.append(image.quantize(_COLORS, dither=Image.Dither.NONE))
    stays = [max(_LEAST_MS, round(stay * 100) * 10) for stay in seconds(film)]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=stays, loop=0, optimize=False)
    return data.getvalue()


def _draw(pen: ImageDraw, row: Row, top: int, cell: float, face: FreeTypeFont) -> None:
    for span in row:
        left = _PAD + span.column * cell
        color = _color(span)
        if all(character in _BARS for character in span.text):
            for index, character in enumerate(span.text):
                _bar(pen, left + index * cell, top, cell, character, color)
            continue
        start = left
        for character, cells in _characters(span):
            if character == "░":
                _block(pen, start, top, cell, color)
            elif character in _BARS:
                _bar(pen, start, top, cell, character, color)
            else:
                pen.text((start, top), character, font=face, fill=color, stroke_width=0.3 if span.bold else 0)
            start += cells * cell
        if span.underline:
            pen.line((left, top + _LINE - 3, start - 1, top + _LINE - 3), fill=color)


def _characters(span: Span) -> list[tuple[str, int]]:
    from rich.cells import get_character_cell_size

    return [(character, get_character_cell_size(character)) for character in span.text]


def _block(pen: ImageDraw, left: float, top: int, cell: float, color: tuple[int, ...]) -> None:
    """A cell of noise: the glyph, which many fonts lack, as a pattern of dots."""
    for y in range(top + 1, top + _LINE - 2, 3):
        for x in range(round(left), round(left + cell), 3):
            pen.rectangle((x + (y - top) // 3 % 2, y, x + (y - top) // 3 % 2, y), fill=color)


def _bar(pen: ImageDraw, left: float, top: int, cell: float, bar: str, color: tuple[int, ...]) -> None:
    height = (_BARS.index(bar) + 1) * (_LINE - 4) // len(_BARS)
    pen.rectangle((left, top + _LINE - 3 - height, left + cell - 2, top + _LINE - 3), fill=color)


def _color(span: Span) -> tuple[int, ...]:
    color = _rgb(COLORS.get(span.color, FOREGROUND))
    if not span.dim:
        return color
    return tuple(
        round(DIM_SHARE * one + (1 - DIM_SHARE) * other) for one, other in zip(color, _rgb(BACKGROUND), strict=True)
    )


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color.removeprefix("#")))


def _system_font() -> Path:
    if shutil.which("fc-match"):
        answer = subprocess.run(["fc-match", "-f", "%{file}", "monospace"], capture_output=True, text=True, check=False)
        if answer.stdout and Path(answer.stdout).is_file():
            return Path(answer.stdout)
    for name in _FONTS:
        if Path(name).is_file():
            return Path(name)
    raise UsageError("No monospaced font was found.", "Name a TrueType file: --font FILE")
