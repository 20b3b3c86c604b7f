"""Talking to a server, this program's or another's: JSON there and back, and streams. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from dgemma_cli.errors import DgemmaError, NetworkError, OutOfMemory, UsageError
from dgemma_cli.terminal.untrusted import visible
from dgemma_cli.writing import ContextFull

_CONNECT = 5.0  # seconds
_SILENCE = 60.0  # seconds without a sign of life; this program's servers give one every 10 s
_LONGEST_LINE = 32 << 20


class Gone(NetworkError):
    """Nobody is there, or about to go: nothing was answered, so somebody else may be asked."""


class Wire:
    """A way to a server. url: with /v1; socket: a Unix socket to reach it by; name: of it, as users know it."""

    def __init__(self, url: str, name: str, socket: Path | None = None, key: str | None = None) -> None:
        self.url = url
        self.name = name
        self.key = key
        transport = None if socket is None else httpx2.HTTPTransport(uds=str(socket))
        self._client = httpx2.Client(
            transport=transport,
            trust_env=socket is None,  # proxies are for the network
            timeout=httpx2.Timeout(_SILENCE, connect=_CONNECT),
            headers={"authorization": f"Bearer {key}"} if key else {},
        )

    def get(self, path: str, timeout: float = _SILENCE) -> Any:
        """The JSON at a path below the url. Raises DgemmaError."""
        return self._ask("GET", path, None, timeout)

    def post(self, path: str, body: Mapping[str, Any], timeout: float = _SILENCE) -> Any:
        """The JSON that comes back. Raises DgemmaError."""
        return self._ask("POST", path, body, timeout)

    @contextmanager
    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """The objects of a stream of events, until its end is told. The request ends with the block.

        Raises DgemmaError: Gone before an answer has begun, NetworkError in the middle of it.
        """
        with ExitStack() as stack:
            with self._told(answering=False):
                response = stack.enter_context(self._client.stream("POST", self._at(path), json=body))
                if response.status_code != 200:
                    response.read()
                    raise self._error(response)
            yield self._events(response)

    def _events(self, response: httpx2.Response) -> Iterator[dict[str, Any]]:
        with self._told(answering=True):
            for line in _lines(response):
                if not line.startswith(b"data:"):
                    continue
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                yield self._object(data)
        raise NetworkError(f"{self.name} ended the answer in the middle.", "Run it again.")

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> Any:
        with self._told(answering=False):
            response = self._client.request(method, self._at(path), json=body, timeout=timeout)
        if response.status_code != 200:
            raise self._error(response)
        try:
            return response.json()
        except ValueError:
            raise NetworkError(f"{self.name} answers something else than JSON.", self._hint()) from None

    def _at(self, path: str) -> str:
        """Below /v1; a path with a slash before it is below the server's root."""
        return self.url.removesuffix("/v1") + path if path.startswith("/") else f"{self.url}/{path}"

    def _object(self, data: bytes) -> dict[str, Any]:
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise NetworkError(f"{self.name} sent something else than an event.", self._hint())
        if "error" in found:
            raise self._meaning(found["error"], 500)
        return found

    @contextmanager
    def _told(self, answering: bool) -> Iterator[None]:
        """Failures of the network as this program's own. answering: the answer has begun."""
        try:
            yield
        except httpx2.ConnectError as error:
            raise Gone(f"{self.name} cannot be reached: {_words(error)}.", self._hint()) from error
        except httpx2.TimeoutException as error:
            raise NetworkError(f"{self.name} does not answer.", self._hint()) from error
        except httpx2.TransportError as error:
            if answering:
                raise NetworkError(f"{self.name} went away in the middle of the answer.", "Run it again.") from error
            raise Gone(f"{self.name} went away without an answer.", self._hint()) from error
        except httpx2.InvalidURL as error:
            raise UsageError(f"{self.url} is no address: {error}.", "Like this: http://127.0.0.1:8000/v1") from error

    def _error(self, response: httpx2.Response) -> DgemmaError:
        try:
            body = response.json()
        except ValueError:
            body = None
        error = body.get("error", body) if isinstance(body, dict) else None
        return self._meaning(error, response.status_code)

    def _meaning(self, error: Any, status: int) -> DgemmaError:
        """What a server's error is to the user. error: OpenAI's object, or whatever came in its place."""
        error = error if isinstance(error, dict) else {"message": error if isinstance(error, str) else ""}
        said = visible(" ".join(str(error.get("message") or error.get("detail") or "").split()))[:500]
        own = error.get("dgemma")
        code = error.get("code")
        if isinstance(own, dict) and "line" in own:
            kind = {kind.exit_code: kind for kind in (UsageError, OutOfMemory)}.get(own.get("exit", 1), NetworkError)
            return kind(visible(str(own["line"])), visible(str(own.get("hint", ""))))
        if code == "stopping":
            return Gone(f"{self.name} is stopping.", self._hint())
        if status == 401 or status == 403:
            return NetworkError(f"{self.name} refuses the key: {said or status}", "The key comes from DGEMMA_API_KEY.")
        if isinstance(own, dict) and isinstance(own.get("tokens"), int) and isinstance(own.get("room"), int):
            return ContextFull(own["tokens"], own["room"])
        if status in (400, 404, 413, 422):
            return UsageError(f"{self.name} refuses this: {said or f'status {status}'}")
        return NetworkError(f"{self.name} failed: {said or f'status {status}'}", self._hint())

    def _hint(self) -> str:
        return "Is it running? See: dgemma ps" if "://" not in self.name else f"Is it running? curl {self.url}/models"


def _lines(response: httpx2.Response) -> Iterator[bytes]:
    """Lines as they come. Split at newlines alone, which is not what text lines are split at."""
    waiting = b""
    for part in response.iter_bytes():
        *lines, waiting = (waiting + part).split(b"\n")
        if len(waiting) > _LONGEST_LINE:
            raise NetworkError("The server sends a line without an end.")
        yield from lines


def _words(error: Exception) -> str:
    return str(error).partition("] ")[2] or str(error) or type(error).__name__
