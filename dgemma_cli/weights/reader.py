"""From the files straight into place: parallel reads of bounded pieces, with no second copy of anything large.

Files are read, not mapped: the pages of a mapping would count as the process's own memory while the weights are copied.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dgemma_cli.errors import CheckpointError
from dgemma_cli.weights.build import TORCH_DTYPES
from dgemma_cli.weights.shards import Stored

_PIECE = 32 * 2**20  # bytes a read takes at the most
_BATCH = 64 * 2**20  # bytes after which a thread reports progress
_THREADS = 4  # reads waiting at once


@dataclass(frozen=True, slots=True)
class Job:
    """Read a tensor into ``place``, a contiguous tensor of as many elements; other float dtypes are converted.

    check: what its values must be: "finite", "finite and not zero" or "finite and not negative"; "" for any.
    """

    name: str
    stored: Stored
    place: Tensor
    check: str = ""


class Task(Protocol):
    """Something else to do with tensors that are read. sources: these, by name."""

    @property
    def sources(self) -> Mapping[str, Stored]: ...

    def run(self, files: Files) -> None: ...


def fill(jobs: Iterable[Job], progress: Callable[[int, int], None] | None, tasks: Sequence[Task] = ()) -> None:
    """Do all jobs and tasks. progress: called in this thread with the bytes read so far and in all.

    Raises CheckpointError naming file and tensor. An interrupt leaves no thread behind.
    """
    ordered = sorted(jobs, key=lambda job: (job.stored.file, job.stored.start))
    total = sum(job.stored.size for job in ordered)
    paths = {job.stored.file for job in ordered}
    for task in tasks:
        total += sum(stored.size for stored in task.sources.values())
        paths |= {stored.file for stored in task.sources.values()}
    done = 0
    with Files(paths) as files, ThreadPoolExecutor(_THREADS) as pool:
        waiting: set[Future[int]] = set()
        try:
            waiting = {pool.submit(_read_batch, files, batch) for batch in _batches(ordered)}
            waiting |= {pool.submit(_do, files, task) for task in tasks}
            while waiting:
                ready, waiting = wait(waiting, return_when="FIRST_COMPLETED")
                for future in ready:
                    done += future.result()
                    if progress is not None:
                        progress(done, total)
        finally:
            for future in waiting:
                future.cancel()


class Files:
    """Open files by path, closed at the end."""

    def __init__(self, paths: set[Path]) -> None:
        self._paths = paths
        self._opened: dict[Path, int] = {}

    def __enter__(self) -> Files:
        try:
            for path in self._paths:
                self._opened[path] = os.open(path, os.O_RDONLY)
        except OSError as error:
            self.__exit__()
            raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}.") from None
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._opened.values():
            os.close(descriptor)

    def read(self, name: str, stored: Stored, first: int, into: Tensor) -> None:
        """Fill ``into`` (contiguous, in host memory) with a tensor's bytes from byte ``first`` of it on."""
        size = into.numel() * into.element_size()
        view = memoryview((ctypes.c_char * size).from_address(into.data_ptr())).cast("B")
        got = 0
        while got < size:
            try:
                count = os.preadv(self._opened[stored.file], [view[got:]], stored.start + first + got)
            except OSError as error:
                raise CheckpointError(f"{stored.file.name}: {name} cannot be read: {error.strerror}.") from None
            if count == 0:
                raise CheckpointError(f"{stored.file.name} ends within {name}: it was cut short while it was read.")
            got += count


def _batches(jobs: list[Job]) -> Iterator[list[tuple[Job, int, int]]]:
    """Pieces (job, first element, one behind the last), put together into batches of some size."""
    batch: list[tuple[Job, int, int]] = []
    used = 0
    for job in jobs:
        item = TORCH_DTYPES[job.stored.dtype].itemsize
        step = _PIECE // item
        for first in range(0, job.place.numel(), step):
            last = min(first + step, job.place.numel())
            batch.append((job, first, last))
            used += (last - first) * item
            if used >= _BATCH:
                yield batch
                batch, used = [], 0
    if batch:
        yield batch


def _read_batch(files: Files, batch: list[tuple[Job, int, int]]) -> int:
    """Returns the bytes read."""
    done = 0
    for job, first, last in batch:
        dtype = TORCH_DTYPES[job.stored.dtype]
        place = job.place.view(-1)[first:last]
        direct = place.device.type == "cpu" and place.dtype == dtype
        values = place if direct else torch.empty(last - first, dtype=dtype, device="cpu")
        files.read(job.name, job.stored, first * dtype.itemsize, values)
        if job.check:
            check_values(job.name, job.stored, values, job.check)
        if not direct:
            place.copy_(values)
        done += values.numel() * dtype.itemsize
    return done


def _do(files: Files, task: Task) -> int:
    task.run(files)
    return sum(stored.size for stored in task.sources.values())


def check_values(name: str, stored: Stored, values: Tensor, check: str) -> None:
    """Raises CheckpointError unless all values are what ``check`` says; see ``Job``."""
    codes_alone = values.dtype == torch.float8_e4m3fn and check == "finite"
    if _no_numbers(values) if codes_alone else _breaks(values, check):
        raise CheckpointError(f"{stored.file.name}: {name} holds a value that is not {check}.")


def _no_numbers(codes: Tensor) -> bool:
    """Whether there are E4M3 codes for no number: by their bits, since whole matrices are of them, and torch converts
    one by one.
    """
    return bool(codes.view(torch.uint8).bitwise_and(0x7F).eq_(0x7F).any())


def _breaks(values: Tensor, check: str) -> bool:
    wide = values.float()
    wrong = not bool(wide.isfinite().all())
    if check == "finite and not zero":
        wrong |= not bool(wide.all())
    elif check == "finite and not negative":  # -0 neither: that a sign is there is enough
        wrong |= bool(wide.signbit().any())
    return wrong


def same_bytes(left: tuple[str, Stored], right: tuple[str, Stored]) -> bool:
    """Whether two stored tensors are equal, byte by byte. Raises CheckpointError if a file cannot be read."""
    (left_name, one), (right_name, other) = left, right
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with Files({one.file, other.file}) as files:
        for first in range(0, one.size, _PIECE):
            size = min(_PIECE, one.size - first)
            pieces = torch.empty(2, size, dtype=torch.uint8)
            files.read(left_name, one, first, pieces[0])
            files.read(right_name, other, first, pieces[1])
            if not torch.equal(pieces[0], pieces[1]):
                return False
    return True
