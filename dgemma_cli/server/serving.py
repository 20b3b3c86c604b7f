"""A server's life: its sockets, its start, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from dgemma_cli.errors import NetworkError, UsageError
from dgemma_cli.server.app import make_app
from dgemma_cli.server.host import Host

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LOOK = 0.2  # seconds between looks at whether all is done, or the time is up


@dataclass(frozen=True, slots=True)
class Door:
    """How a server is reached. key: wanted over TCP; origins: web pages that may call; grace: seconds that requests at
    work have to end once the server stops.
    """

    sockets: list[socket.socket]
    paths: list[Path]  # of the Unix sockets among them
    key: str | None
    origins: list[str]
    names: set[str] | None
    grace: float = 30.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host in _LOOPBACK or host.startswith("127.")


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket that does not listen yet. Raises UsageError or NetworkError, saying why not."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"{host} is no address of this machine: {error.strerror}.") from None
    # The protocol must be named: asyncio sends at once (TCP_NODELAY) only where it is; else every answer takes 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise NetworkError(f"{host}:{port} cannot be served: {error.strerror}.", "Take another --port.") from None
    return listening


def serve(host: Host, door: Door, ready: Callable[[], None]) -> None:
    """Serve until a signal, a request or idleness ends it; then requests at work are answered, others refused.

    ready: called once requests are taken. A second signal ends it at once.
    """
    asyncio.run(_Serving(host, door, ready).run())


class _Serving:
    def __init__(self, host: Host, door: Door, ready: Callable[[], None]) -> None:
        self._host = host
        self._door = door
        self._ready = ready
        self._stopping = asyncio.Event()
        app = make_app(host, door.key, door.origins, door.names, self._stop)
        # No headers are believed about who asks; nothing is logged about it either.
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", proxy_headers=False, server_header=False, ws="none"
        )
        self._server = _Server(config)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        self._host.worker.start()
        serving = asyncio.create_task(self._server.serve(self._door.sockets))
        try:
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.01)
            if not serving.done():
                self._ready()
                await self._until_stopped()
                await self._let_finish()
        finally:
            self._server.should_exit = True
            await serving
            await asyncio.to_thread(self._host.worker.end)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._server.should_exit = self._server.force_exit = True
        self._stopping.set()

    async def _until_stopped(self) -> None:
        while not self._stopping.is_set() and not self._is_over():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _LOOK)
        for path in self._door.paths:
            path.unlink(missing_ok=True)  # nobody new comes

    def _is_over(self) -> bool:
        return self._host.keep is not None and self._host.idle > self._host.keep

    async def _let_finish(self) -> None:
        """Refuse what waits and what still comes; wait for what is at work, but no longer than the grace."""
        self._host.worker.drain()
        clock = asyncio.get_running_loop().time
        end = clock() + self._door.grace
        while self._host.going and clock() < end and not self._server.force_exit:
            await asyncio.sleep(0.02)
        if self._host.going:
            await asyncio.to_thread(self._host.worker.end)  # tells each of them
            while self._host.going and clock() < end + 2:
                await asyncio.sleep(0.02)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are taken care of here."""
        yield
