"""The worker: turns, users, a full queue, readers that are slow or gone, errors, the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted import script, spell

from dgemma_cli.engine.events import Denoised, Event, Finished
from dgemma_cli.errors import OutOfMemory
from dgemma_cli.server import worker as worker_module
from dgemma_cli.server.refusal import Refusal
from dgemma_cli.server.worker import Job, Worker


class Watched(Job):
    """A job that remembers what was put, and who else was put something in between."""

    log: list[str]
    got: list[Any]
    done: threading.Event


def make(
    name: str, log: list[str], events: Callable[[], Iterator[Event]], user: str = "", read: bool = True
) -> Watched:
    def put(event: Event | Exception | None) -> None:
        job.got.append(event)
        if isinstance(event, Denoised):
            log.append(name)
        if isinstance(event, Event):
            if read:
                WORKERS[-1].taken(job)
        else:
            job.done.set()

    job = Watched(begin=events, put=put, user=user)
    job.got, job.done = [], threading.Event()
    return job


WORKERS: list[Worker] = []


@pytest.fixture
def work(request: pytest.FixtureRequest) -> Iterator[Callable[..., Worker]]:
    def start(parallel: int = 2, queue: int = 10, forget: Callable[[], None] = lambda: None) -> Worker:
        WORKERS.append(Worker(parallel, queue, forget))
        return WORKERS[-1]

    yield start
    for worker in WORKERS:
        if worker._thread.is_alive():
            worker.end()
    WORKERS.clear()


def three_steps() -> Iterator[Event]:
    return script(spell("ab"), canvas=8, steps=3)


def ended(*jobs: Watched) -> None:
    for job in jobs:
        assert job.done.wait(10)


def test_those_at_work_take_turns_by_steps(work: Callable[..., Worker]) -> None:
    worker, log = work(parallel=2), []
    jobs = [make(name, log, three_steps) for name in "abc"]
    for job in jobs:
        worker.submit(job)
    worker.start()
    ended(*jobs)
    assert "".join(log) == "ababab" + "ccc"
    assert all(isinstance(job.got[-2], Finished) and job.got[-1] is None for job in jobs)
    assert (worker.tally.steps, worker.tally.finished, worker.active, worker.queued) == (9, 3, 0, 0)


def test_users_take_turns_in_the_queue(work: Callable[..., Worker]) -> None:
    worker, log = work(parallel=1), []
    jobs = [make(name, log, three_steps, user) for name, user in zip("abcdx", "uuuuv", strict=True)]
    for job in jobs:
        worker.submit(job)
    worker.start()
    ended(*jobs)
    assert "".join(log)[::3] == "axbcd"  # who asked once does not wait for all of another's


def test_a_full_queue_refuses(work: Callable[..., Worker]) -> None:
    worker, log = work(parallel=1, queue=2), []
    held = threading.Event()

    def waits() -> Iterator[Event]:
        held.wait(10)
        return three_steps()

    first = make("a", log, waits)
    worker.submit(first)
    worker.start()
    while not worker.active:
        pass
    waiting = [make("b", log, three_steps) for _ in range(2)]
    for job in waiting:
        worker.submit(job)
    with pytest.raises(Refusal) as caught:
        worker.submit(make("c", log, three_steps))
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    worker.cancel(waiting[0])
    assert worker.queued == 1
    worker.submit(make("d", log, three_steps))  # a place became free
    held.set()
    ended(first, waiting[1])
    assert worker.tally.cancelled == 1


def test_a_job_that_is_cancelled_ends_before_its_next_step(work: Callable[..., Worker]) -> None:
    worker, closed = work(parallel=1), threading.Event()

    def endless() -> Iterator[Event]:
        try:
            while True:
                yield from (event for event in three_steps() if isinstance(event, Denoised))
        finally:
            closed.set()

    job = make("a", [], endless)
    put = job.put

    def cancelling(event: Event | Exception | None) -> None:
        put(event)
        if len(job.got) == 5:
            worker.cancel(job)

    job.put = cancelling
    worker.submit(job)
    worker.start()
    assert closed.wait(10)
    assert (len(job.got), worker.tally.steps) == (5, 5)
    after = make("b", [], three_steps)
    worker.submit(after)
    ended(after)
    assert worker.tally.cancelled == 1


def test_a_reader_far_behind_pauses_its_own_job_only(
    work: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_AHEAD", 3)
    worker, log = work(parallel=2), []
    slow, quick = make("s", log, three_steps, read=False), make("q", log, three_steps)
    worker.submit(slow)
    worker.submit(quick)
    worker.start()
    ended(quick)
    assert len(slow.got) == 3
    for _ in range(10):
        worker.taken(slow)
    ended(slow)


def test_an_error_ends_its_job_only(work: Callable[..., Worker]) -> None:
    forgotten: list[int] = []
    worker = work(forget=lambda: forgotten.append(1))

    def fails(error: Exception) -> Callable[[], Iterator[Event]]:
        def events() -> Iterator[Event]:
            yield from list(three_steps())[:3]
            raise error

        return events

    jobs = [make("a", [], fails(error)) for error in (ValueError("x"), OutOfMemory("The GPU is full."), MemoryError())]
    good = make("b", [], three_steps)
    for job in (*jobs, good):
        worker.submit(job)
    worker.start()
    ended(*jobs, good)
    assert [job.got[-1].status for job in jobs] == [500, 503, 503]
    assert [job.got[-1].code for job in jobs] == ["failed", "out_of_memory", "out_of_memory"]
    assert forgotten == [1, 1]
    assert isinstance(good.got[-2], Finished)
    assert worker.tally.failed == 3


def test_draining_refuses_who_waits_and_lets_who_works_finish(work: Callable[..., Worker]) -> None:
    worker, log, begun, go = work(parallel=1), [], threading.Event(), threading.Event()

    def waits() -> Iterator[Event]:
        begun.set()
        go.wait(10)
        return three_steps()

    at_work, waiting = make("a", log, waits), make("b", log, three_steps)
    worker.submit(at_work)
    worker.submit(waiting)
    worker.start()
    assert begun.wait(10)
    worker.drain()
    ended(waiting)
    assert waiting.got[0].code == "stopping"
    with pytest.raises(Refusal, match="stopping"):
        worker.submit(make("c", log, three_steps))
    go.set()
    ended(at_work)
    assert isinstance(at_work.got[-2], Finished)


def test_the_end_tells_those_still_at_work(work: Callable[..., Worker]) -> None:
    worker = work()

    def endless() -> Iterator[Event]:
        while True:
            yield from three_steps()

    job = make("a", [], endless)
    worker.submit(job)
    worker.start()
    while not job.got:
        pass
    worker.end()
    assert job.got[-1].code == "stopping"
