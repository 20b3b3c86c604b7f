"""A server put together: the model loaded, its doors opened, kept until it is told to stop."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dgemma_cli import __version__
from dgemma_cli.commands import loading
from dgemma_cli.commands.capacity import capacity, work_of
from dgemma_cli.commands.fetch_missing import fetch_missing
from dgemma_cli.engine.options import CONTEXT
from dgemma_cli.errors import DgemmaError, UsageError
from dgemma_cli.fit import Fit, written
from dgemma_cli.server import places
from dgemma_cli.server.background import BoundedLog, Report
from dgemma_cli.server.host import Host, Limits
from dgemma_cli.server.identity import Identity, decisive, fingerprint
from dgemma_cli.server.request import Bounds
from dgemma_cli.server.serving import Door, bind, is_loopback
from dgemma_cli.server.serving import serve as run_server
from dgemma_cli.terminal.environment import Environment


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a server answers, and whom. socket: a Unix socket instead of the address."""

    host: str
    port: int
    socket: Path | None
    key: str | None
    origins: list[str]


@dataclass(frozen=True, slots=True)
class Serving:
    """What a server was asked to be. keep: seconds of idleness after which it ends; parallel, cache: None for as much
    of the usual as there is memory for; max_prompt, max_output: tokens, None for the context; max_body, cache: bytes;
    report_to: a pipe to whoever started it in the background.
    """

    model: str
    device: str
    dtype: str
    fit: Fit
    reach: Reach
    keep: float | None
    parallel: int | None
    queue: int
    max_prompt: int | None
    max_output: int | None
    max_body: int
    cache: int | None
    fetch: bool
    report_to: int | None


def hold(serving: Serving, environment: Environment) -> None:
    """Load the model and serve it until the end. Raises DgemmaError."""
    report = Report(serving.report_to)
    if serving.report_to is not None:
        logging.getLogger().addHandler(BoundedLog())
    try:
        with ExitStack() as stack:
            # An address that is taken is told before the model is loaded; what listens before that would keep
            # whoever comes waiting.
            tcp = _address(serving, stack)
            paths = _paths(serving, environment)
            if serving.report_to is None:
                fetch_missing(serving.model, environment, serving.fetch, quiet=False)
            host = _load(serving, report, partial(environment.say, dim=True))
            sockets = [] if tcp is None else [tcp]
            for path in paths:
                sockets.append(stack.enter_context(places.listen(path)))
                stack.callback(path.unlink, missing_ok=True)
            host.addresses = [_url(serving.reach.host, tcp)] if tcp is not None else []
            if serving.reach.socket is not None:
                host.addresses.append(str(serving.reach.socket))
            door = Door(sockets, paths, serving.reach.key, serving.reach.origins, _names(serving.reach))

            def ready() -> None:
                if serving.report_to is not None:
                    report.ready(paths[-1])
                else:
                    _greet(host, door, environment)

            run_server(host, door, ready)
    except DgemmaError as error:
        report.failed(error)
        raise
    finally:
        report.close()


def _address(serving: Serving, stack: ExitStack) -> socket.socket | None:
    reach = serving.reach
    if reach.socket is not None or serving.report_to is not None:
        return None
    if not is_loopback(reach.host) and reach.key is None:
        raise UsageError(
            f"Others can reach {reach.host}, so it needs a key.",
            "Set DGEMMA_API_KEY, or --api-key-file FILE (openssl rand -hex 24 makes one).",
        )
    return stack.enter_context(bind(reach.host, reach.port))


def _paths(serving: Serving, environment: Environment) -> list[Path]:
    """The Unix sockets. The last is the one by which this user's commands find the server."""
    found = []
    if serving.reach.socket is not None:
        places.check_free(serving.reach.socket)
        found.append(serving.reach.socket)
    try:
        folder = places.own_folder(places.runtime_folder(environment.variables))
        found.append(folder / f"{os.getpid()}.sock")
    except DgemmaError as error:
        if serving.report_to is not None:
            raise
        environment.say(f"warning: {error.message} dgemma run will not find this server.", dim=True)
    return found


def _url(host: str, listening: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"


def _names(reach: Reach) -> set[str] | None:
    """By what names a server without a key may be called: so that no web page reaches it under a name of its own."""
    if reach.key is not None:
        return None
    return {"localhost", "127.0.0.1", "[::1]", f"[{reach.host}]" if ":" in reach.host else reach.host.lower()}


def _load(serving: Serving, report: Report, tell: Callable[[str], None]) -> Host:
    session = loading.load_session(
        serving.model,
        serving.device,
        serving.dtype,
        report.progress,
        serving.fit,
        tell,
        work_of(serving.parallel, serving.cache),
        ("--parallel", "--cache"),
        # No conversation is longer than a prompt and a reply may be.
        min(CONTEXT, (serving.max_prompt or CONTEXT) + (serving.max_output or CONTEXT)),
    )
    can = capacity(session.report, serving.parallel, serving.cache)
    if can.lowered:
        tell(f"there is memory for {can} (--parallel, --cache)")
    auto_device, auto_dtype = session.is_auto()
    limits = Limits(
        body=serving.max_body,
        prompt=min(serving.max_prompt or session.room, session.room),
        output=min(serving.max_output or session.context, session.context),
        parallel=can.replies,
        queue=serving.queue,
    )
    identity = Identity(
        name=session.name,
        folder=str(session.folder.resolve()),
        fingerprint=fingerprint(session.folder),
        device=session.choice.device,
        dtype=session.choice.dtype,
        auto_device=auto_device,
        auto_dtype=auto_dtype,
        fit=written(serving.fit),
        fitted=session.choice.fit,
        room=session.room,
        context=session.context,
        limited=(limits.prompt, limits.output) != (session.room, session.context),
        pid=os.getpid(),
        version=__version__,
        prefix=sys.prefix,
        settings=decisive(os.environ),
    )
    return Host(
        identity,
        session,
        session.shelf(can.at_rest, can.replies, can.reserved),
        Bounds(limits.output, session.vocabulary, can.canvases),
        limits,
        session.in_use,
        {session.name, serving.model},
        serving.keep,
    )


def _greet(host: Host, door: Door, environment: Environment) -> None:
    identity = host.identity
    for address in host.addresses:
        environment.say(f"{identity.name} on {identity.device} ({identity.dtype}): {address}")
    if door.key is not None:
        environment.say("Requests over the network need the key. They are not encrypted.", dim=True)
    environment.say("dgemma run and dgemma chat use it by themselves. Ctrl-C stops it.", dim=True)
