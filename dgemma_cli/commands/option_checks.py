"""Checks of options that several commands have."""

from __future__ import annotations

import math
import re

import typer

from dgemma_cli.errors import NoDevice, UsageError
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


def check_device(device: str) -> None:
    """Raise NoDevice for what is no name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise NoDevice(f"{device!r} is no device.", "Use auto, cpu, cuda or cuda:N.")


def checked_device(device: str) -> str:
    """``device``, if that is a device's name: a callback, so that nobody waits for torch to be told."""
    check_device(device)
    return device


def checked_model(model: str | None) -> str | None:
    """``model``, if it is not empty, as a variable of a script may be: the default would not be what was meant."""
    if model is not None and not model.strip():
        raise UsageError("The model's name is empty.", "See what there is: dgemma list")
    return model


def given(context: typer.Context, name: str) -> bool:
    """Whether the parameter ``name`` stands on the command line, not in the environment or the settings."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
