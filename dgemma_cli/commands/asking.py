"""A question with a yes or a no, to whoever sits at the terminal."""

from __future__ import annotations

import typer

from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.interrupts import INTERRUPTS


def agreed(question: str, environment: Environment, default: bool = False) -> bool:
    """Whether the answer is yes; default: what Enter says. Ctrl-D says no."""
    try:
        return typer.confirm(question, default=default, err=True)
    except typer.Abort:
        if INTERRUPTS.received is not None:
            raise
        environment.say("")  # Ctrl-D leaves the cursor behind the question
        return False
