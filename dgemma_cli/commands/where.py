"""Where a command's text is written: flags that say so, and which of them contradict each other. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from dgemma_cli.commands.option_checks import given
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.units import seconds

if TYPE_CHECKING:
    from dgemma_cli.writing import Writer


@dataclass(frozen=True, slots=True)
class Where:
    """warm: a server on this machine may write; keep: one is left behind, until it is idle for so long; endpoint: the
    address of a server that must.
    """

    warm: bool
    keep: str | None
    endpoint: str | None


def where(context: typer.Context, server: bool, keep: str | None, endpoint: str | None) -> Where:
    """Raises UsageError. A setting gives way to a flag; only flags can contradict one another."""
    if endpoint:
        flags = {"server": "--server", "keep": "--keep", "device": "--device", "dtype": "--dtype", "yes": "--yes"}
        local = [flag for name, flag in flags.items() if given(context, name)]
        if local:
            mean = "means" if len(local) == 1 else "mean"
            raise UsageError(f"{' and '.join(local)} {mean} this machine, but {endpoint} is to write.")
        return Where(False, None, endpoint)
    if keep is not None:
        seconds(keep, "keep")
        if not server and given(context, "keep") and given(context, "server"):
            raise UsageError("--keep and --no-server contradict each other.")
    return Where(server, keep if server else None, None)


def remote(where: Where, model: str | None, environment: Environment, steps: Mapping[str, bool]) -> Writer | None:
    """The writer at the endpoint, if there is to be one. steps: flags that want to see its steps, and whether they are
    given. Raises UsageError if it tells none, and what ``at`` raises.
    """
    if where.endpoint is None:
        return None
    from dgemma_cli.commands.writers import at

    writer = at(where.endpoint, model, environment)
    wanted = [flag for flag, wants in steps.items() if wants]
    if wanted and not writer.tells_steps:
        raise UsageError(f"{where.endpoint} tells no steps, which {' and '.join(wanted)} would need.")
    return writer
