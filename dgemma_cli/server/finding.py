"""This user's servers on this machine: found by their sockets, asked what they are, the dead ones swept away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgemma_cli.errors import NetworkError
from dgemma_cli.server import places
from dgemma_cli.server.identity import Identity, Wanted
from dgemma_cli.server.served import Served
from dgemma_cli.server.wire import Gone, Wire

_PATIENCE = 5.0  # seconds for a server to say what it is


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answers. state: all it says of itself (``server.host.Host.state``)."""

    socket: Path
    identity: Identity
    state: dict[str, Any]

    def served(self) -> Served:
        """The model in it."""
        identity = self.identity
        place = f"the server with pid {identity.pid} (--no-server would load it here)"
        return Served(
            wire(self.socket), identity.name, identity.device, identity.dtype, identity.fitted, identity.room, place
        )


def wire(socket: Path) -> Wire:
    """A way to the server at ``socket``."""
    return Wire("http://dgemma/v1", f"The server with pid {socket.stem}", socket)


def running(variables: Mapping[str, str]) -> Iterator[Found]:
    """The servers that answer."""
    for socket in places.sockets(places.runtime_folder(variables)):
        found = ask(socket)
        if found is not None:
            yield found


def ask(socket: Path) -> Found | None:
    """What the server at ``socket`` is; None if none answers. A socket that nobody listens at is taken away."""
    way = wire(socket)
    try:
        state = way.get("/dgemma/server", _PATIENCE)
        return Found(socket, Identity.read(state), state)
    except Gone:
        places.sweep(socket)
    except (NetworkError, ValueError):
        pass  # it is busy with something else, or something else
    finally:
        way.close()
    return None


def matching(wanted: Wanted, variables: Mapping[str, str]) -> tuple[Found | None, list[str]]:
    """A server that would do just what this process would, and why the others would not."""
    reasons: list[str] = []
    for found in running(variables):
        reason = "it is stopping" if found.state.get("stopping") else wanted.mismatch(found.identity, variables)
        if reason is None:
            return found, reasons
        reasons.append(f"not the server with pid {found.identity.pid}: {reason}")
    return None, reasons
