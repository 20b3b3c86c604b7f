"""``dgemma replay``: a recorded run, played again in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgemma_cli.commands.option_checks import check_coloring, check_slow, check_speed
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.color_by import ColorBy
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.untrusted import visible


def replay(
    recording: Annotated[
        Path, typer.Argument(metavar="FILE", help="A recording: dgemma run --record FILE …", show_default=False)
    ],
    speed: Annotated[float, typer.Option("--speed", metavar="X", help="2 is twice as fast as it was.")] = 1.0,
    slow: Annotated[
        int, typer.Option("--slow", metavar="MS", help="Show each step for MS milliseconds at least.")
    ] = 100,
    paused: Annotated[bool, typer.Option("--paused", help="Begin paused.")] = False,
    color_by: Annotated[ColorBy, typer.Option("--color-by", help="What colours tell.")] = ColorBy.STATE,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (NO_COLOR=1).")] = False,
) -> None:
    """Play a recording in the terminal.

    Space pauses, the arrows step back and forth and change the speed, digits jump, q ends. The answer is printed at the
    end.
    """
    from dgemma_cli.terminal.film import load_film
    from dgemma_cli.terminal.painter import Painter
    from dgemma_cli.terminal.palette import Palette
    from dgemma_cli.terminal.replay import Keyboard, Player, play

    environment = Environment.current()
    check_speed(speed)
    check_slow(slow)
    film = load_film(recording, speed, slow / 1000)
    if not environment.stderr_is_terminal or environment.dumb:
        raise UsageError("A replay needs a terminal.", f"A file anyone can open: dgemma export {recording} run.html")
    color = environment.color(no_color)
    check_coloring(color_by, color)
    keyboard = environment.stdin.fileno() if environment.stdin_is_terminal else None
    if paused and keyboard is None:
        raise UsageError("--paused needs keys to go on, but standard input is no terminal.")
    painter = Painter.on_terminal(environment.stderr.fileno(), environment.encode_for_terminal)
    palette = Palette(color, environment.unicode, color_by)
    play(Player(film, paused), painter, palette, Keyboard(keyboard))
    environment.write((visible(film.text) if environment.stdout_is_terminal else film.text) + "\n")
