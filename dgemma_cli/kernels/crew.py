"""Threads that run whole operations side by side, where torch would split every operation among its own threads.

A pass on the CPU is thousands of operations, most of them small: the experts' products have a few tokens each. Split
among threads, each begins and ends with a meeting of all of them, and what Python does in between is done while they
wait. A crew splits the pass instead: each member works through rows, experts or tiles of its own, and they meet a few
times a layer.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")
Item = TypeVar("Item")

_MOST = 8  # members; where there are more threads, each member's operations use several


class Team(Protocol):
    """size: how many items ``map`` works on at a time."""

    size: int

    def map(self, work: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
        """work(item) for every item, results in the order of the items. Items are begun in that order, so the long
        ones should come first. The first exception of any ends the others' work early and is raised.
        """
        ...


def whole(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """What was split, together again."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


class _Alone:
    """A team of the calling thread, whose operations use torch's threads."""

    size = 1

    def map(self, work: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
        return [work(item) for item in items]


class Crew:
    """``size`` threads, without gradients, whose operations use ``threads`` of torch's own threads each."""

    def __init__(self, size: int, threads: int) -> None:
        self.size = size
        self._one_at_a_time = threading.Lock()
        self._stopped = False
        usual = torch.get_num_threads()
        self._members = [_Member(threads) for _ in range(size)]
        # A member sets the number for itself, and the default of threads to come with it: that is put back here.
        for member in self._members:
            member.ready.wait()
        torch.set_num_threads(usual)

    def run(self, work: Callable[[], T]) -> T:
        """work(), called by the first member: the maps in it are shared out among all members.

        An exception in the calling thread, such as KeyboardInterrupt, ends the work at its next map and is raised.
        """
        with self._one_at_a_time:
            done = self._members[0].begin(lambda: self._lead(work))
            try:
                done.wait()
            except BaseException:
                self._stopped = True
                done.wait()
                raise
            finally:
                self._stopped = False
            return cast(T, done.result())

    def _lead(self, work: Callable[[], T]) -> T:
        _OF_THREAD.team = self
        return work()

    def map(self, work: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
        """See ``Team.map``. Called by the first member, within ``run``; maps within the work are not shared out."""
        if self._stopped:
            raise _StoppedError
        waiting = list(items)
        results: list[T | None] = [None] * len(waiting)
        claim = itertools.count().__next__  # one step for Python, so that no item is claimed twice
        failed = False

        def share() -> None:
            nonlocal failed
            while not failed and (index := claim()) < len(waiting):
                try:
                    results[index] = work(waiting[index])
                except BaseException:
                    failed = True
                    raise

        others = [member.begin(share) for member in self._members[1 : len(waiting)]]
        _OF_THREAD.team = _ALONE
        try:
            share()
        finally:
            _OF_THREAD.team = self
            for done in others:
                done.wait()
        for done in others:
            done.result()
        return cast(list[T], results)


class _StoppedError(Exception):
    """The one who waits for this work does so no longer."""


class _Done:
    """The outcome of something a member was given to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._value: object = None
        self._error: BaseException | None = None

    def set(self, value: object, error: BaseException | None) -> None:
        self._value, self._error = value, error
        self._lock.release()

    def wait(self) -> None:
        with self._lock:
            pass

    def result(self) -> object:
        if self._error is not None:
            raise self._error
        return self._value


class _Member(threading.Thread):
    def __init__(self, threads: int) -> None:
        super().__init__(daemon=True, name="dgemma crew")
        self.ready = threading.Event()
        self._threads = threads
        self._tasks: SimpleQueue[tuple[Callable[[], object], _Done]] = SimpleQueue()
        self.start()

    def begin(self, work: Callable[[], object]) -> _Done:
        done = _Done()
        self._tasks.put((work, done))
        return done

    def run(self) -> None:
        torch.get_num_threads()  # a thread takes the default when it first asks: before it is set, not after
        torch.set_num_threads(self._threads)
        torch.set_grad_enabled(False)
        self.ready.set()
        while True:
            work, done = self._tasks.get()
            try:
                done.set(work(), None)
            except BaseException as error:
                done.set(None, error)
            del work, done  # what they hold is not to wait for the next task


_ALONE = _Alone()
_OF_THREAD = threading.local()
_CREWS: dict[int, Crew] = {}
_MAKING = threading.Lock()


def current() -> Team:
    """The crew that the calling thread leads; a team of one for other threads."""
    return getattr(_OF_THREAD, "team", _ALONE)


def crew() -> Crew | None:
    """The crew for as many threads as torch uses now, made when it is first asked for; None for a single thread."""
    usual = torch.get_num_threads()
    if usual == 1:
        return None
    with _MAKING:
        if usual not in _CREWS:
            size = min(usual, _MOST)
            _CREWS[usual] = Crew(size, usual // size)
        return _CREWS[usual]
