"""The thread that computes: requests wait in a fair queue, and those at work take turns, an event at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dgemma_cli.engine.events import BlockCommitted, Denoised, Event, Finished, PromptEncoded
from dgemma_cli.server.refusal import busy, explained, stopping

LOG = logging.getLogger("dgemma.server")
_AHEAD = 64  # events that a reader may be behind before its request pauses


@dataclass(slots=True)
class Tally:
    """What was done since the start. step_seconds: over all steps; failed: requests that ended in an error."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0


@dataclass(eq=False, slots=True)
class Job:
    """One request's generation.

    begin: makes its events, in the worker's thread. put: takes each event there, then None at the end, or what went
    wrong. user: who takes turns with others. behind: events put and not yet read, by whoever reads.
    """

    begin: Callable[[], Iterator[Event]]
    put: Callable[[Event | Exception | None], None]
    user: str
    cancelled: bool = False
    behind: int = 0
    _events: Iterator[Event] | None = field(default=None, repr=False)


class Worker:
    """Runs jobs, ``parallel`` of them in turns; up to ``queue`` more wait.

    Users take turns too: whoever asks much at once waits behind himself, not the others behind him.
    forget: frees what memory it can, called when it runs out.
    """

    def __init__(self, parallel: int, queue: int, forget: Callable[[], None]) -> None:
        self._parallel = parallel
        self._room = queue
        self._forget = forget
        self._waiting: dict[str, deque[Job]] = {}  # by user; the one whose turn it is comes first
        self._active: deque[Job] = deque()  # the one whose turn it is comes first
        self._news = threading.Condition()
        self.draining = self._ended = False
        self.tally = Tally()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return sum(map(len, list(self._waiting.values())))

    @property
    def active(self) -> int:
        """Jobs at work."""
        return len(self._active)

    def submit(self, job: Job) -> None:
        """Queue a job. Raises Refusal if the queue is full or the server stops."""
        with self._news:
            if self.draining:
                raise stopping()
            if len(self._active) >= self._parallel and self.queued >= self._room:
                raise busy()
            self._waiting.setdefault(job.user, deque()).append(job)
            self._news.notify()

    def cancel(self, job: Job) -> None:
        """Nobody wants the rest of a job: it ends before its next step. One that has ended is left alone."""
        with self._news:
            job.cancelled = True
            jobs = self._waiting.get(job.user, deque())
            if job in jobs:
                jobs.remove(job)
                self.tally.cancelled += 1
                if not jobs:
                    del self._waiting[job.user]
            self._news.notify()

    def taken(self, job: Job) -> None:
        """The reader of a job has read an event."""
        with self._news:
            job.behind -= 1
            if job.behind == _AHEAD - 1:
                self._news.notify()

    def drain(self) -> None:
        """Take no more jobs and refuse those that wait; those at work go on."""
        with self._news:
            self.draining = True
            waiting = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
            self._news.notify()
        for job in waiting:
            job.put(stopping())

    def end(self) -> None:
        """Refuse what is still at work, and end the thread."""
        with self._news:
            self._ended = True
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._news:
                self._admit()
                job = self._next()
                while job is None and not self._ended:
                    self._news.wait()
                    self._admit()
                    job = self._next()
                if self._ended:
                    break
            assert job is not None
            self._advance(job)
        for job in self._active:
            self._close(job)
            job.put(stopping())

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self._parallel:
            user, jobs = next(iter(self._waiting.items()))
            job = jobs.popleft()
            del self._waiting[user]
            if jobs:
                self._waiting[user] = jobs  # behind the other users
            if not job.cancelled:
                self._active.append(job)

    def _next(self) -> Job | None:
        """The job whose turn it is; those whose readers are far behind let others go first."""
        for _ in range(len(self._active)):
            job = self._active[0]
            self._active.rotate(-1)
            if job.cancelled or job.behind < _AHEAD:
                return job
        return None

    def _advance(self, job: Job) -> None:
        """Run a job to its next event."""
        outcome: Event | Exception | None = None
        begun = time.perf_counter()
        if not job.cancelled:
            try:
                job._events = job._events or job.begin()
                outcome = next(job._events, None)
            except Exception as error:
                outcome = explained(error)
                if outcome.code == "out_of_memory":
                    self._forget()
                if outcome.status == 500:
                    LOG.error("a request failed", exc_info=error)
        self._count(job, outcome, time.perf_counter() - begun)
        if not isinstance(outcome, Event):
            self._close(job)
            with self._news:
                self._active.remove(job)
        else:
            with self._news:
                job.behind += 1
        if not job.cancelled:
            job.put(outcome)

    def _count(self, job: Job, outcome: Event | Exception | None, seconds: float) -> None:
        match outcome:
            case PromptEncoded():
                self.tally.prompt_tokens += outcome.tokens
                self.tally.cached_tokens += outcome.cached
            case Denoised():
                self.tally.steps += 1
                self.tally.step_seconds += seconds
            case BlockCommitted():
                self.tally.tokens += len(outcome.ids)
            case Finished():
                self.tally.finished += 1
            case Exception():
                self.tally.failed += 1
            case None if job.cancelled:
                self.tally.cancelled += 1

    @staticmethod
    def _close(job: Job) -> None:
        """Let a job's cache go where others find it."""
        close = getattr(job._events, "close", None)
        if close is not None:
            close()
        job._events = None
