"""``dgemma ps``: the servers of this user on this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from dgemma_cli.terminal.environment import Environment
from dgemma_cli.units import duration, size


def ps(json_output: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False) -> None:
    """List the models that are kept warm, where, and until when."""
    from dgemma_cli.server.finding import running

    environment = Environment.current()
    found = [server.state for server in running(environment.variables)]
    if json_output:
        environment.write(json.dumps(found, indent=2) + "\n")
        return
    rows = [("PID", "MODEL", "DEVICE", "MEMORY", "STATE", "UNTIL", "ADDRESS"), *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        environment.write("  ".join(cells).rstrip() + "\n")
    if not found and environment.stdout_is_terminal:
        environment.say("Keep one: dgemma run --keep 10m … or dgemma serve", dim=True)


def _row(state: dict[str, Any]) -> tuple[str, ...]:
    busy = f"{state['active']} at work, {state['queued']} waiting" if state["active"] or state["queued"] else ""
    idle = f"idle for {duration(state['idle'])}"
    until = "stopped" if state["until"] is None else f"{duration(state['until'])} from now"
    memory = state["memory"]
    return (
        str(state["pid"]),
        state["name"],
        f"{state['device']} ({state['dtype']})",
        size(memory.get("device", 0) + memory["process"]),
        "stopping" if state["stopping"] else busy or idle,
        until,
        " ".join(state["addresses"]) or "this user's commands",
    )
