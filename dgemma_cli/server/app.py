"""The HTTP API: OpenAI's paths for texts, and a few of dgemma's own."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dgemma_cli.errors import DgemmaError
from dgemma_cli.server import request as bodies
from dgemma_cli.server.host import Host, Writing
from dgemma_cli.server.metrics import CONTENT_TYPE, Requests, page
from dgemma_cli.server.refusal import Refusal, explained, stopping
from dgemma_cli.server.reply import ALIVE, Reply, failure
from dgemma_cli.server.request import Asked, Bounds
from dgemma_cli.terminal.entries import Entry, Finish, Prompt, Start

LOG = logging.getLogger("dgemma.server")

_HEARTBEAT = 10.0  # seconds of silence in a stream after which it says that it is still there


def make_app(
    host: Host, key: str | None, origins: list[str], names: set[str] | None, stop: Callable[[], None]
) -> Starlette:
    """The application.

    key: what requests over TCP must bring. origins: web pages that may use it. names: hosts a request over TCP may call
    this server by, None for any. stop: ends the server.
    """
    requests = Requests()
    api = _Api(host, requests, stop)
    routes = [
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.completion, methods=["POST"]),
        Route("/v1/models", api.models),
        Route("/v1/models/{name:path}", api.model),
        Route("/tokenize", api.tokenize, methods=["POST"]),
        Route("/health", api.health),
        Route("/metrics", api.metrics),
        Route("/dgemma/server", api.server),
        Route("/dgemma/stop", api.stop, methods=["POST"]),
    ]
    middleware = [Middleware(_Door, key=key, names=names, requests=requests, paths={route.path for route in routes})]
    if origins:
        middleware.insert(
            0, Middleware(CORSMiddleware, allow_origins=origins, allow_headers=["*"], allow_methods=["*"])
        )
    handlers: dict[Any, Any] = {HTTPException: _http_error, ClientDisconnect: _left, Exception: _refused}
    handlers |= {Refusal: _refused, DgemmaError: _refused}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


class _Json(JSONResponse):
    """JSON in ASCII: whatever a client made us repeat, it can be sent."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


class _Api:
    """The answers."""

    def __init__(self, host: Host, requests: Requests, stop: Callable[[], None]) -> None:
        self._host = host
        self._requests = requests
        self._stop = stop
        identity = host.identity
        self._start = Start(identity.name, identity.device, identity.dtype, "", None, fit=identity.fitted)
        self._created = int(time.time())

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, bodies.chat)

    async def completion(self, request: Request) -> Response:
        return await self._answer(request, bodies.completion)

    async def tokenize(self, request: Request) -> Response:
        """How long a prompt would be, in the form of vLLM's call of this name."""
        asked = bodies.chat(bodies.decode(await self._body(request)), self._host.bounds)
        try:
            ids = await self._host.encode(asked)
        except Refusal as refusal:
            if "tokens" not in refusal.more:
                raise
            return _Json({"count": refusal.more["tokens"], "max_model_len": self._host.identity.context})
        return _Json({"count": len(ids), "max_model_len": self._host.identity.context, "tokens": ids})

    async def models(self, request: Request) -> Response:
        return _Json({"object": "list", "data": [self._description()]})

    async def model(self, request: Request) -> Response:
        self._check_model(request.path_params["name"])
        return _Json(self._description())

    async def health(self, request: Request) -> Response:
        if self._host.worker.draining:
            raise stopping()
        return _Json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        return Response(page(self._host, self._requests), media_type=CONTENT_TYPE)

    async def server(self, request: Request) -> Response:
        """What this server is and does: for the commands of its user."""
        _own(request)
        return _Json(self._host.state())

    async def stop(self, request: Request) -> Response:
        _own(request)
        self._stop()
        return _Json({"status": "stopping"})

    async def _answer(self, request: Request, read: Callable[[Any, Bounds], Asked]) -> Response:
        host = self._host
        asked = read(bodies.decode(await self._body(request)), host.bounds)
        self._check_model(asked.model)
        ids = await host.encode(asked)
        client = request.client
        writing = host.write(asked, ids, asked.user or (client.host if client else ""))
        reply = Reply(asked, self._start)
        if asked.stream:
            return _Stream(writing, reply, host.limits.patience)
        return _Whole(writing, reply)

    async def _body(self, request: Request) -> bytes:
        """The body, within its bounds of size and time."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # what a foreign web page may send unasked is something else
            raise Refusal(415, "The body must be JSON: content-type application/json.", "invalid_content_type")
        most = self._host.limits.body
        refusal = Refusal(413, f"The body has more than {most:,} bytes.", "body_too_large")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise refusal
        parts = bytearray()
        try:
            async with asyncio.timeout(self._host.limits.patience):
                async for part in request.stream():
                    parts += part
                    if len(parts) > most:
                        raise refusal
        except TimeoutError:
            raise Refusal(408, "The body did not arrive in time.", "timeout") from None
        return bytes(parts)

    def _check_model(self, name: str | None) -> None:
        if name is not None and name not in self._host.names:
            short = name if len(name) < 100 and name.isprintable() else "of that name"
            raise Refusal(
                404, f"There is no model {short} here; there is {self._host.identity.name}.", "model_not_found", "model"
            )

    def _description(self) -> dict[str, Any]:
        identity = self._host.identity
        return {
            "id": identity.name,
            "object": "model",
            "created": self._created,
            "owned_by": "dgemma",
            "max_model_len": identity.context,
            "dgemma": {
                "version": identity.version,
                "device": identity.device,
                "dtype": identity.dtype,
                "fit": identity.fitted,
                "room": min(identity.room, self._host.limits.prompt),
            },
        }


class _Answering(Response):
    """A response that writes while it is sent, and ends its job when the client leaves."""

    def __init__(self, writing: Writing, reply: Reply) -> None:
        super().__init__()
        self._writing = writing
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._writing:
            gone = asyncio.create_task(_until_gone(receive))
            answer = asyncio.create_task(self._answer(scope, receive, send))
            try:
                await asyncio.wait((gone, answer), return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    answer.result()
            finally:
                for task in (gone, answer):
                    task.cancel()
                await asyncio.gather(gone, answer, return_exceptions=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class _Whole(_Answering):
    """One object at the end."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        found: dict[type[Entry], Any] = {}
        try:
            async for entry in self._writing.entries():
                found[type(entry)] = entry
            response = _Json(self._reply.whole(found[Prompt], found[Finish]))
        except Refusal as refusal:
            response = _error(refusal)
        await response(scope, receive, send)


class _Stream(_Answering):
    """Server-sent events. patience: seconds for the client to take what was sent."""

    def __init__(self, writing: Writing, reply: Reply, patience: float) -> None:
        super().__init__(writing, reply)
        self._patience = patience

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with asyncio.timeout(self._patience) as limit:
                async for piece in _with_heartbeat(self._pieces()):
                    limit.reschedule(asyncio.get_running_loop().time() + self._patience)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    limit.reschedule(asyncio.get_running_loop().time() + self._patience)
        except TimeoutError:
            LOG.warning("a client took nothing for %g s: its request is ended", self._patience)
            raise ClientDisconnect from None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        for piece in self._reply.opening():
            yield piece
        try:
            async for entry in self._writing.entries():
                for piece in self._reply.pieces(entry):
                    yield piece
        except Refusal as refusal:
            yield failure(refusal)


async def _with_heartbeat(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``pieces``, and a sign of life where none comes for a while."""
    coming: asyncio.Task[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(pieces))
            done, _ = await asyncio.wait((coming,), timeout=_HEARTBEAT)
            if not done:
                yield ALIVE
                continue
            try:
                piece = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield piece
    finally:
        if coming is not None:
            coming.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Door:
    """Who may come in: over TCP only with the key and under a name of this server; over a Unix socket its owner."""

    def __init__(self, app: ASGIApp, key: str | None, names: set[str] | None, requests: Requests, paths: set[str]):
        self._app = app
        self._key = key
        self._names = names
        self._requests = requests
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._requests.count(path, message["status"])
            await send(message)

        refusal = None if _is_local(scope) else self._refusal(Request(scope))
        await (self._app if refusal is None else _error(refusal))(scope, receive, counted)

    def _refusal(self, request: Request) -> Refusal | None:
        name = _bare(request.headers.get("host", ""))
        if self._names is not None and name not in self._names:
            # A web page whose name was made to point here would come under its own name.
            return Refusal(421, "This server is not known by that name.", "wrong_host")
        if self._key is None or request.url.path == "/health":
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), self._key.encode()):
            return None
        return Refusal(401, "This server wants a key: Authorization: Bearer KEY.", "invalid_api_key")


def _bare(host: str) -> str:
    """A Host header's name, without the port."""
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0].lower()


def _is_local(scope: Scope) -> bool:
    """Over a Unix socket, which has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


def _own(request: Request) -> None:
    if not _is_local(request.scope):
        raise HTTPException(404)


def _error(refusal: Refusal) -> _Json:
    headers = {"retry-after": "1"} if refusal.status == 503 else {}
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _Json(refusal.body(), refusal.status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    return _error(explained(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, f"{error.detail}: {request.method} {request.url.path[:100]}", "not_found")
    response = _error(refusal)
    response.headers.update(error.headers or {})
    return response


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it
