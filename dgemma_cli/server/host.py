"""The model a server has: its words, its limits, and the jobs that write with it. Imports no torch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dgemma_cli.engine.events import Denoised, Event
from dgemma_cli.engine.options import Options
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.server.identity import Identity
from dgemma_cli.server.refusal import too_long
from dgemma_cli.server.request import Asked, Bounds
from dgemma_cli.server.worker import Job, Worker
from dgemma_cli.terminal.entries import Entry
from dgemma_cli.terminal.narrator import Language, Narrator


class Speaking(Protocol):
    """``commands.loading.Session``: words to ids and back. room: tokens a prompt may have."""

    @property
    def room(self) -> int: ...
    def encode(self, messages: Sequence[Message], thinking: bool) -> list[int]: ...
    def encode_text(self, text: str) -> list[int]: ...
    def language(self, prompt: Sequence[int]) -> Language: ...
    def check(self, options: Options) -> None: ...


class Shelf(Protocol):
    """``engine.shelf.Shelf``."""

    @property
    def nbytes(self) -> int: ...
    def reply(self, ids: Sequence[int], options: Options, conversation: str | None) -> Iterator[Event]: ...
    def forget(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken at the most. body: bytes; prompt, output: tokens of a request; parallel: requests at work at once;
    queue: requests that wait; patience: seconds for a reader to take what was sent, and for a body to arrive.
    """

    body: int
    prompt: int
    output: int
    parallel: int
    queue: int
    patience: float = 60.0


class Host:
    """Takes requests and writes replies.

    names: what the model may be called. keep: seconds without a request after which the server ends, None for never.
    begun, rested: when it started and when the last request ended, on the monotonic clock.
    """

    def __init__(
        self,
        identity: Identity,
        session: Speaking,
        shelf: Shelf,
        bounds: Bounds,
        limits: Limits,
        memory: Callable[[], dict[str, int]],
        names: set[str],
        keep: float | None,
    ) -> None:
        self.identity = identity
        self.names = names
        self.keep = keep
        self.addresses: list[str] = []
        self.bounds = bounds
        self.limits = limits
        self.memory = memory
        self.shelf = shelf
        self.worker = Worker(limits.parallel, limits.queue, shelf.forget)
        self.begun = self.rested = time.monotonic()
        self.going = 0  # requests that are being answered
        self._session = session
        self._reader = ThreadPoolExecutor(1, "reader")  # prompts are read one at a time, beside everything else

    @property
    def idle(self) -> float:
        """Seconds since anything was asked."""
        return 0.0 if self.going else time.monotonic() - self.rested

    def state(self) -> dict[str, Any]:
        """What it is and does, for JSON. until: seconds until it ends by itself."""
        return self.identity.as_dict() | {
            "addresses": self.addresses,
            "active": self.worker.active,
            "queued": self.worker.queued,
            "stopping": self.worker.draining,
            "uptime": time.monotonic() - self.begun,
            "idle": self.idle,
            "keep": self.keep,
            "until": None if self.keep is None else max(0.0, self.keep - self.idle),
            "memory": self.memory() | {"caches": self.shelf.nbytes},
        }

    async def encode(self, asked: Asked) -> list[int]:
        """The prompt's ids. Raises Refusal or DgemmaError."""
        self._session.check(asked.options)

        def read() -> list[int]:
            if asked.messages:
                return self._session.encode(asked.messages, asked.thinking)
            return list(asked.prompt) if isinstance(asked.prompt, tuple) else self._session.encode_text(asked.prompt)

        ids = await asyncio.get_running_loop().run_in_executor(self._reader, read)
        room = min(self.limits.prompt, self._session.room)
        if len(ids) > room:
            raise too_long(len(ids), room)
        return ids

    def write(self, asked: Asked, ids: Sequence[int], user: str) -> Writing:
        """Queue a reply. Raises Refusal if there is no room in the queue."""
        writing = Writing(self, asked, ids, user)
        self.worker.submit(writing.job)
        return writing


class Writing:
    """A reply on its way. Made and read in the event loop; the worker puts the events.

    Entering and leaving it as a context counts it among those that go on, and ends the job if it was left early.
    """

    def __init__(self, host: Host, asked: Asked, ids: Sequence[int], user: str) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._mail: asyncio.Queue[Entry | Exception | None] = asyncio.Queue()
        narrator = Narrator(host._session.language(ids))
        # Every step is an event, wanted or not: so that requests take turns by steps.
        options = replace(asked.options, drafts=True)

        def put(event: Event | Exception | None) -> None:
            if isinstance(event, Denoised) and not asked.steps:
                host.worker.taken(self.job)
                return
            found = event if event is None or isinstance(event, Exception) else narrator.tell(event)
            self._loop.call_soon_threadsafe(self._mail.put_nowait, found)

        self.job = Job(lambda: host.shelf.reply(ids, options, asked.conversation), put, user)

    async def __aenter__(self) -> Writing:
        self._host.going += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._host.worker.cancel(self.job)
        self._host.going -= 1
        self._host.rested = time.monotonic()

    async def entries(self) -> AsyncIterator[Entry]:
        """The entries as they come. Raises Refusal if the reply fails."""
        while True:
            entry = await self._mail.get()
            self._host.worker.taken(self.job)
            if entry is None:
                return
            if isinstance(entry, Exception):
                raise entry
            yield entry
