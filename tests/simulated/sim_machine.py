"""The simulated machine's streams and graphs: who waits for whom, and what a recording refuses.

Work is done at once, whatever stream it is given to. That it *could* be done later is what is checked: by ``sim_order``
for streams and the host, and for a recording by CUDA's rules. A recording computes to find shapes alone: all that it
wrote is put back, and what it made holds garbage until it is played.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import torch
from sim_order import Accesses, Clock, Race, Timeline
from torch import Tensor

DEVICES = 2
GARBAGE = 0xFF  # NaN as a float, -1 as an integer


class Refused(AssertionError):
    """A real GPU would fail here, or give something else."""


def storage_of(inner: Tensor) -> int:
    """The number by which a tensor's memory is known; 0 for none."""
    return inner.untyped_storage().data_ptr()


def span(inner: Tensor) -> tuple[int, int, int]:
    """Storage, first byte, and the byte behind the last one."""
    extent = sum((size - 1) * stride for size, stride in zip(inner.shape, inner.stride(), strict=True)) + 1
    first = inner.data_ptr()
    return storage_of(inner), first, first + (extent * inner.element_size() if inner.numel() else 0)


def spoil(storage: torch.UntypedStorage) -> None:
    """Fill memory with garbage."""
    ctypes.memset(storage.data_ptr(), GARBAGE, storage.nbytes())


@contextmanager
def numbers_alone() -> Iterator[None]:
    """What is done now is no work for a GPU."""
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        yield


class Machine:
    """Its GPUs, and what happens on them. problems: all that was refused, also where somebody caught it; planted: by a
    test that is about that.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.host = Timeline("the host")
        self.accesses = Accesses()
        self.problems: list[str] = []
        self.planted = False
        self.pinned: dict[int, torch.UntypedStorage] = {}
        self.sync_mode = "default"
        self.pools: list[object] = []  # of recordings, also of those that are gone
        self.graphs: list[weakref.ref[Graph]] = []  # in the order they were recorded in
        self.streams: list[Stream] = []
        self._thread = threading.local()
        self.defaults = [Stream(self, index, f"cuda:{index}'s default stream") for index in range(DEVICES)]
        self.ran: set[str] = set()  # names of all operations that ran on a GPU
        self.launched: set[str] = set()  # and of Triton's kernels

    def refuse(self, why: str) -> NoReturn:
        self.problems.append(why)
        raise Refused(why)

    @property
    def device(self) -> int:
        """The calling thread's current one."""
        return getattr(self._thread, "device", 0)

    @device.setter
    def device(self, index: int) -> None:
        self._thread.device = index

    @property
    def own(self) -> dict[int, Stream]:
        """The calling thread's current streams, by device, where they are not the default ones."""
        if not hasattr(self._thread, "streams"):
            self._thread.streams = {}
        found: dict[int, Stream] = self._thread.streams
        return found

    def stream(self, device: int) -> Stream:
        return self.own.get(device) or self.defaults[device]

    def capturing(self) -> Capture | None:
        """The recording of the calling thread."""
        return next((stream.capture for stream in self.own.values() if stream.capture is not None), None)

    def living(self) -> list[Graph]:
        """The graphs there are, in the order they were recorded in."""
        return [graph for graph in (reference() for reference in self.graphs) if graph is not None]

    def wait(self, stream: Stream | None, what: str) -> None:
        """The host waits for a stream, or for all."""
        capture = self.capturing()
        if capture is not None:
            self.refuse(f"{what} in a recording")
        if self.sync_mode == "error" and stream is not None:
            self.refuse(f"{what} makes the host wait")
        for each in self.streams if stream is None else [stream]:
            self.host.join(each.line.clock)

    def touch_on_host(self, tensors: Iterable[tuple[Tensor, bool]], what: str) -> None:
        """The host reads or writes (with True) tensors; pinned ones may be in flight."""
        for tensor, writes in tensors:
            if storage_of(tensor) in self.pinned:
                self._touch(self.accesses, self.host, span(tensor), writes, what)

    def launch(self, stream: Stream, what: str, reads: Sequence[Tensor], writes: Sequence[Tensor]) -> None:
        """Work is given to a stream that touches this memory."""
        capture = stream.capture
        if capture is None:
            stream.line.join(self.host.clock)
        line = stream.line if capture is None else capture.line(stream)
        line.tick()
        accesses = self.accesses if capture is None else capture.accesses
        for tensors, written in ((reads, False), (writes, True)):
            for tensor in tensors:
                self._touch(accesses, line, span(tensor), written, what)

    def _touch(self, accesses: Accesses, line: Timeline, where: tuple[int, int, int], writes: bool, what: str) -> None:
        if not where[0]:
            return
        try:
            accesses.touch(line, *where, writes, what)
        except Race as race:
            self.problems.append(str(race))
            raise


class Stream:
    """``torch.cuda.Stream``."""

    def __init__(self, machine: Machine, device: int, name: str) -> None:
        self._machine = machine
        self.device = torch.device("cuda", device)
        self.line = Timeline(name)
        self.capture: Capture | None = None
        self._before: list[tuple[int, Stream | None]] = []
        machine.streams.append(self)

    def record_event(self, event: Event | None = None) -> Event:
        event = Event(self._machine) if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.clock is None:
            return
        capture = event.capture
        if capture is not None and capture.ended:
            self._machine.refuse("an event of a recording that has ended is waited for")
        if capture is None:
            if self.capture is not None:
                self._machine.refuse("a recording waits for an event from outside of it")
            self.line.join(event.clock)
            return
        if self.capture not in (None, capture):
            self._machine.refuse("a recording waits for an event of another one")
        self.capture = capture
        capture.line(self).join(event.clock)

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        self._machine.wait(self, "Stream.synchronize")

    def query(self) -> bool:
        if self._machine.capturing():
            self._machine.refuse("Stream.query in a recording")
        return True

    def __enter__(self) -> Stream:
        machine, index = self._machine, self.device.index
        self._before.append((machine.device, machine.own.get(index)))
        machine.device = index
        machine.own[index] = self
        return self

    def __exit__(self, *_: object) -> None:
        machine, index = self._machine, self.device.index
        machine.device, before = self._before.pop()
        machine.own.pop(index, None)
        if before is not None:
            machine.own[index] = before


class Event:
    """``torch.cuda.Event``."""

    def __init__(self, machine: Machine, timing: bool = False) -> None:
        self._machine = machine
        self._timing = timing
        self.clock: Clock | None = None
        self.capture: Capture | None = None
        self.time = 0.0

    def record(self, stream: Stream | None = None) -> None:
        machine = self._machine
        stream = machine.stream(machine.device) if stream is None else stream
        self.capture = stream.capture
        if self.capture is None:
            stream.line.join(machine.host.clock)
        line = stream.line if self.capture is None else self.capture.line(stream)
        line.tick()
        self.clock, self.time = dict(line.clock), time.perf_counter()
        self.device = stream.device

    def living(self) -> list[Graph]:
        """The graphs there are, in the order they were recorded in."""
        return [graph for graph in (reference() for reference in self.graphs) if graph is not None]

    def wait(self, stream: Stream | None = None) -> None:
        machine = self._machine
        (machine.stream(machine.device) if stream is None else stream).wait_event(self)

    def synchronize(self) -> None:
        if self._machine.capturing() or self.capture is not None:
            self._machine.refuse("Event.synchronize in a recording")
        if self.clock is not None:
            self._machine.host.join(self.clock)

    def query(self) -> bool:
        if self._machine.capturing() or self.capture is not None:
            self._machine.refuse("Event.query in a recording")
        return True

    def elapsed_time(self, end: Event) -> float:
        if not (self._timing and end._timing):
            self._machine.refuse("a time between events that were not made with enable_timing")
        if self.clock is None or end.clock is None:
            self._machine.refuse("a time between events that were not recorded")
        if self.device != end.device:
            self._machine.refuse("a time between events of two devices")
        if not (self._machine.host.knows(self.clock) and self._machine.host.knows(end.clock)):
            self._machine.refuse("a time between events that the host has not waited for")
        return 1000 * (end.time - self.time)


class Capture:
    """A recording under way."""

    def __init__(self, origin: Stream, graph: Graph) -> None:
        self.origin, self.graph = origin, graph
        self.accesses = Accesses()
        self.ended = False
        self._lines: dict[int, tuple[Stream, Timeline]] = {}
        self._kept: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # memory as it was before
        origin.capture = self

    def line(self, stream: Stream) -> Timeline:
        """The stream's within the recording."""
        return self._lines.setdefault(id(stream), (stream, Timeline(f"{stream.line.name} in a recording")))[1]

    def will_write(self, inner: Tensor) -> None:
        """Keep what is there, if it is from before."""
        number = storage_of(inner)
        if number and number not in self.graph.made and number not in self._kept:
            storage = inner.untyped_storage()
            self._kept[number] = storage, storage.clone()

    def end(self) -> str | None:
        """Returns what is wrong with the recording, if anything."""
        joined = self.line(self.origin)
        loose = [stream.line.name for stream, line in self._lines.values() if not joined.knows(line.clock)]
        for stream, _ in self._lines.values():
            stream.capture = None
        self.origin.capture, self.ended = None, True
        for storage, before in self._kept.values():
            storage.copy_(before)
        for storage in self.graph.made.values():
            spoil(storage)
        return f"a recording ends without having waited for {loose[0]}" if loose else None


class Graph:
    """``torch.cuda.CUDAGraph``. made: the memory that was taken in the recording, which the graph keeps."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.made: dict[int, torch.UntypedStorage] = {}
        self.steps: list[tuple[str, Callable[[], None], list[Tensor], list[Tensor]]] = []
        self.pool: object = None
        self.recorded = False
        self.device = -1
        self._capture: Capture | None = None

    def __del__(self) -> None:
        for number in self.made:
            self._machine.accesses.free(number, self._machine.host)

    def capture_begin(
        self, pool: object = None, capture_error_mode: str = "global", check_input_liveness: bool = False
    ) -> None:
        machine = self._machine
        if capture_error_mode not in ("global", "thread_local", "relaxed"):
            machine.refuse(f"no capture_error_mode {capture_error_mode!r}")
        if self.recorded:
            machine.refuse("a graph is recorded twice")
        if pool in machine.pools and all(graph.pool is not pool for graph in machine.living()):
            machine.refuse("a recording in a pool that its last graph has left")
        stream = machine.stream(machine.device)
        if stream in machine.defaults:
            machine.refuse("a recording of a default stream")
        self.pool, self.device = object() if pool is None else pool, stream.device.index
        machine.pools.append(self.pool)
        machine.graphs.append(weakref.ref(self))
        self._capture = Capture(stream, self)

    def capture_end(self) -> None:
        assert self._capture is not None
        wrong = self._capture.end()
        self._capture, self.recorded = None, True  # no circle, which only the collector would open
        if wrong is None and not self.steps:
            wrong = "nothing was recorded: the work went to another stream, or to another GPU"
        if wrong is not None and sys.exc_info()[0] is None:
            self._machine.refuse(wrong)

    def add(self, what: str, again: Callable[[], None], reads: list[Tensor], writes: list[Tensor]) -> None:
        self.steps.append((what, again, reads, writes))

    def replay(self) -> None:
        machine = self._machine
        with machine.lock, numbers_alone():
            if not self.recorded:
                machine.refuse("a graph is played that was not recorded")
            if machine.capturing():
                machine.refuse("a graph is played in a recording")
            # Like a launch of Triton's: on the current stream of the device it was recorded on.
            stream = machine.stream(self.device)
            for what, again, reads, writes in self.steps:
                machine.launch(stream, f"{what} of a graph", reads, writes)
                again()
            self._spoil_others()

    def _spoil_others(self) -> None:
        """Memory that was free when this graph was recorded may have been given to those recorded later in its pool,
        and is written by this graph.
        """
        later = False
        for graph in self._machine.living():
            if graph is self:
                later = True
            elif later and graph.pool == self.pool:
                for storage in graph.made.values():
                    spoil(storage)

    def reset(self) -> None:
        self.__init__(self._machine)  # type: ignore[misc]
