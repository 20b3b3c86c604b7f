"""What Triton's interpreter does not show by itself: it runs the programs of a launch one after another, where a GPU
runs them side by side; and what lies beside a tensor is there to be read.

So every place that they touch is looked at. A program may neither write where another one reads or writes, nor read
back what it has written itself, which others of its threads may not see yet; and all of it must lie in the tensors that
the kernel was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

Addresses = NDArray[np.uint64]


class Race(AssertionError):
    """The result of a launch would hang on the order of its programs or of a program's threads."""


class Outside(AssertionError):
    """A kernel touches memory that it was not given."""


class Launch:
    """reads, writes: the program, how often it had written before, and the addresses."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        stretches = {(one.untyped_storage().data_ptr(), one.untyped_storage().nbytes()) for one in given}
        self.stretches = [(first, first + size) for first, size in sorted(stretches)]
        self.program, self.written = -1, 0
        self.reads: list[tuple[int, int, Addresses]] = []
        self.writes: list[tuple[int, int, Addresses]] = []

    def next_program(self) -> None:
        self.program += 1
        self.written = 0

    def read(self, pointers: Any, mask: Any) -> None:
        self.reads.append((self.program, self.written, self._touched(pointers, mask)))

    def write(self, pointers: Any, mask: Any) -> None:
        self.writes.append((self.program, self.written, self._touched(pointers, mask)))
        self.written += 1

    def _touched(self, pointers: Any, mask: Any) -> Addresses:
        addresses, wanted = np.broadcast_arrays(pointers.data, mask.data)
        addresses = addresses[wanted.astype(bool)]
        if addresses.size:
            last = addresses.max() + np.uint64(max(1, pointers.get_element_ty().primitive_bitwidth // 8))
            if not any(first <= addresses.min() and last <= end for first, end in self.stretches):
                raise Outside(f"{addresses.min():#x} to {last:#x} is in none of {self.stretches}")
        return addresses

    def check(self) -> None:
        """Raises Race."""
        if not self.writes:
            return
        places = np.concatenate([addresses for _, _, addresses in self.writes])
        sizes = [len(addresses) for _, _, addresses in self.writes]
        programs = np.repeat([program for program, _, _ in self.writes], sizes)
        times = np.repeat([time for _, time, _ in self.writes], sizes)
        order = np.argsort(places, kind="stable")
        places, programs, times = places[order], programs[order], times[order]
        if ((places[1:] == places[:-1]) & (programs[1:] != programs[:-1])).any():
            raise Race("two programs write to one place")
        for program, time, read in self.reads:
            if not read.size or np.searchsorted(places, read.min()) == np.searchsorted(places, read.max(), "right"):
                continue
            at = np.minimum(np.searchsorted(places, read), len(places) - 1)
            same = places[at] == read
            if (same & (programs[at] != program)).any():
                raise Race("a program reads where another one writes")
            if (same & (times[at] < time)).any():
                raise Race("a program reads back what it has written")


@contextmanager
def watched() -> Iterator[None]:
    """Every launch is."""
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

    launches: list[Launch] = []
    call, place = GridExecutor.__call__, InterpreterBuilder.set_grid_idx
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def launch(executor: Any, *args: Any, **kwargs: Any) -> None:
        launches.append(Launch([each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]))
        try:
            call(executor, *args, **kwargs)
            launches[-1].check()
        finally:
            launches.pop()

    def set_grid_idx(builder: Any, *index: int) -> None:
        launches[-1].next_program()
        place(builder, *index)

    def masked_load(builder: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        launches[-1].read(pointers, mask)
        return load(builder, pointers, mask, *rest)

    def masked_store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        launches[-1].write(pointers, mask)
        return store(builder, pointers, value, mask, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GridExecutor, "__call__", launch)
        patch.setattr(InterpreterBuilder, "set_grid_idx", set_grid_idx)
        patch.setattr(InterpreterBuilder, "create_masked_load", masked_load)
        patch.setattr(InterpreterBuilder, "create_masked_store", masked_store)
        yield
