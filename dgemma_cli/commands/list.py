"""``dgemma list``: the models on this machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.units import size


def list_models(
    cache_dir: Annotated[
        Path | None,
        typer.Option("--cache-dir", metavar="DIR", help="Look in DIR.", show_default="the Hugging Face cache"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the models on this machine, and how much of each is here."""
    from dgemma_cli.catalog.inventory import Entry, entries

    environment = Environment.current()
    if cache_dir is not None and not cache_dir.is_dir():
        raise UsageError(f"{cache_dir} is no folder.")
    found = entries(cache_dir)
    if json_output:
        environment.write(json.dumps([_describe(entry) for entry in found], indent=2) + "\n")
        return

    def row(entry: Entry) -> tuple[str, ...]:
        state = "complete" if entry.complete else f"{entry.there} of {entry.needed} files"
        return (entry.name, entry.format, size(entry.size), state, _ago(entry.last_used), str(entry.folder))

    rows = [("NAME", "FORMAT", "SIZE", "STATE", "LAST USED", "FOLDER"), *map(row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row_ in rows:
        cells = [cell.ljust(width) for cell, width in zip(row_, [*widths, 0], strict=True)]
        environment.write("  ".join(cells).rstrip() + "\n")
    if len(found) < 2 and environment.stdout_is_terminal:
        environment.say("Fetch the large one: dgemma pull", dim=True)


def _ago(moment: datetime | None) -> str:
    """How long ago, roughly."""
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _describe(entry: Any) -> dict[str, Any]:
    return {
        "name": entry.name,
        "repository": entry.repository,
        "commit": entry.commit,
        "format": entry.format,
        "size": entry.size,
        "complete": entry.complete,
        "files": {"here": entry.there, "needed": entry.needed},
        "last_used": entry.last_used.isoformat(timespec="seconds") if entry.last_used else None,
        "folder": str(entry.folder),
    }
