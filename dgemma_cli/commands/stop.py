"""``dgemma stop``: end servers of this user."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgemma_cli.errors import DgemmaError, UsageError
from dgemma_cli.terminal.environment import Environment

if TYPE_CHECKING:
    from dgemma_cli.server.finding import Found

_PATIENCE = 40.0  # seconds: requests at work have 30 to end


def stop(
    which: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL|PID", help="Which ones (dgemma ps).", show_default="the only one"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Stop servers, after the requests at work are answered."""
    from dgemma_cli.server.finding import running, wire

    environment = Environment.current()
    if every and which:
        raise UsageError("--all goes without names.")
    servers = list(running(environment.variables))
    chosen = servers if every or not which else [server for name in which for server in _called(name, servers)]
    if not servers:
        environment.say("No server runs.", dim=True)
        return
    if not which and not every and len(servers) > 1:
        names = " ".join(str(server.identity.pid) for server in servers)
        raise UsageError(f"There are {len(servers)} servers.", f"Say which ({names}), or --all. See: dgemma ps")
    for server in chosen:
        wire(server.socket).post("/dgemma/stop", {})
    deadline = time.monotonic() + _PATIENCE
    for server in chosen:
        while _lives(server):
            if time.monotonic() > deadline:
                raise DgemmaError(
                    f"The server with pid {server.identity.pid} does not end.", f"kill -9 {server.identity.pid}"
                )
            time.sleep(0.05)
        environment.say(f"stopped {server.identity.name} (pid {server.identity.pid})", dim=True)


def _called(name: str, servers: list[Found]) -> list[Found]:
    found = [server for server in servers if name in (server.identity.name, str(server.identity.pid))]
    if not found:
        raise UsageError(f"No server is called {name!r}.", "See: dgemma ps")
    return found


def _lives(server: Found) -> bool:
    pid = server.identity.pid
    try:
        os.kill(pid, 0)
        # What has ended may be there still, until whoever started it takes notice.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # there is no /proc
        return True
