"""What ``dgemma bench`` lets one choose by name: the size of random weights, and published formats."""

from __future__ import annotations

from enum import StrEnum

from dgemma_cli.catalog import known
from dgemma_cli.errors import UsageError


class Size(StrEnum):
    """nano: the embedded model's shape; mini: 0.7 billion parameters; full: the published network."""

    NANO = "nano"
    MINI = "mini"
    FULL = "full"


def formats() -> list[str]:
    """The names of the published formats, the preferred one first."""
    return [each.name.partition(":")[2] for each in known.KNOWN]


def check_formats(asked: tuple[str, ...]) -> None:
    """Raises UsageError unless all are published formats, none of them twice."""
    for form in asked:
        if form not in formats():
            raise UsageError(f"There is no format {form!r}.", f"Formats: {', '.join(formats())}.")
        if asked.count(form) > 1:
            raise UsageError(f"--formats names {form} twice.")
