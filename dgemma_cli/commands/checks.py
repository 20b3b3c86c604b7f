"""Checks of options that several commands have."""

from __future__ import annotations

import math

import typer

from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.color_by import ColorBy


def check_coloring(color_by: ColorBy | None, color: bool) -> None:
    """Raise UsageError where colours should tell something and are off."""
    if color_by is ColorBy.ENTROPY and not color:
        raise UsageError("--color-by entropy needs colours, which are off (--no-color or NO_COLOR).")


def check_slow(slow: int | None) -> None:
    """Raise UsageError for a negative number of milliseconds."""
    if slow is not None and slow < 0:
        raise UsageError(f"slow must be at least 0, not {slow}.")


def check_speed(speed: float) -> None:
    """Raise UsageError for what is no speed."""
    if not math.isfinite(speed) or speed <= 0:
        raise UsageError(f"speed must be more than 0, not {speed:g}.")


def given(context: typer.Context, name: str) -> bool:
    """Whether the parameter ``name`` stands on the command line, not in the environment or the settings."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
