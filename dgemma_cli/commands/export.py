"""``dgemma export``: a recorded run as a file that others can open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgemma_cli.commands.option_checks import check_slow, check_speed
from dgemma_cli.errors import DiskError, UsageError
from dgemma_cli.terminal.color_by import ColorBy

FORMATS = (".svg", ".html", ".gif", ".cast")


def export(
    recording: Annotated[
        Path, typer.Argument(metavar="RECORDING", help="Made by: dgemma run --record FILE …", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Its ending says what it is: .svg .html .gif .cast", show_default=False),
    ],
    speed: Annotated[float, typer.Option("--speed", metavar="X", help="2 is twice as fast as it was.")] = 1.0,
    slow: Annotated[
        int, typer.Option("--slow", metavar="MS", help="Show each step for MS milliseconds at least.")
    ] = 100,
    columns: Annotated[
        int | None,
        typer.Option("--columns", metavar="N", help="Width of the picture, in characters.", show_default="80"),
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", metavar="N", help="Its height, in lines, at the most.", show_default="24")
    ] = None,
    color_by: Annotated[
        ColorBy | None, typer.Option("--color-by", help="What colours tell.", show_default="state")
    ] = None,
    font: Annotated[
        Path | None,
        typer.Option(
            "--font",
            metavar="FILE",
            help="Font of a GIF: TrueType, monospaced.",
            show_default="one of this system",
        ),
    ] = None,
) -> None:
    """Make a picture, a page or a cast of a recording.

    .svg is an animated picture, .html a page with a scrubber and a map of the entropies, .gif fits everywhere, .cast is
    for asciinema. None of them loads anything from the network.
    """
    from dgemma_cli.terminal.export.cast import to_cast
    from dgemma_cli.terminal.export.gif import to_gif
    from dgemma_cli.terminal.export.page import to_html
    from dgemma_cli.terminal.export.stage import Stage
    from dgemma_cli.terminal.export.svg import to_svg
    from dgemma_cli.terminal.film import load_film
    from dgemma_cli.terminal.palette import Palette

    kind = output.suffix.lower()
    if kind not in FORMATS:
        raise UsageError(f"{output} has no ending that says what to make.", f"One of: {' '.join(FORMATS)}")
    if kind == ".html" and (columns is not None or rows is not None or color_by is not None):
        raise UsageError(
            "--columns, --rows and --color-by are not for a page, which takes the reader's size and choice."
        )
    if font is not None and kind != ".gif":
        raise UsageError("--font is for a GIF; other formats use the reader's fonts.")
    for name, value, least in (("columns", columns, 20), ("rows", rows, 5)):
        if value is not None and not least <= value <= 1000:
            raise UsageError(f"{name} must be {least} to 1000, not {value}.")
    check_speed(speed)
    check_slow(slow)
    film = load_film(recording, speed, slow / 1000)
    if not film.shots:
        raise UsageError(f"{recording} holds no step to show.")
    stage = Stage(columns or 80, rows or 24, Palette(color=True, unicode=True, by=color_by or ColorBy.STATE))
    data: bytes
    match kind:
        case ".svg":
            data = to_svg(film, stage).encode()
        case ".html":
            data = to_html(film).encode()
        case ".cast":
            data = to_cast(film, stage).encode()
        case _:
            data = to_gif(film, stage, font)
    try:
        output.write_bytes(data)
    except OSError as error:
        raise DiskError(f"{output} cannot be written: {error.strerror}.") from None
