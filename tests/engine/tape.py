"""An executor for the CPU that treats recorded work as a CUDA graph does, and a guard over what is done beside it.

While it records, the tape notes every operation with its arguments as they are. Played again, each runs on the very
same tensors and leaves its result in the memory that the first one had: a number that the host knew while recording
stays what it was. What a recording must not do (read a number back, take a shape from one) fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dgemma_cli.model.programs import Run

# Operations that make the host wait for a device, or whose results have shapes that hang on values.
WAITING = {"_local_scalar_dense", "item", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "bincount"}
# What may be asked of a device's memory between recordings.
IN_PLACE = {"copy_", "fill_", "zero_", "select", "slice", "detach", "view", "alias"}


class Waited(AssertionError):
    """The host waited for the device."""


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def refuse_waiting(name: str, args: Sequence[Any]) -> None:
    if name in WAITING:
        raise Waited(name)
    if name.startswith("index") and any(each.dtype == torch.bool for each in tensors(args[1])):
        raise Waited(f"{name} by a mask")


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Callable[[], None]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        refuse_waiting(func.overloadpacket.__name__, args)
        found = func(*args, **kwargs)
        results, inputs = tensors(found), {id(each) for each in tensors((args, kwargs))}

        def again() -> None:
            for old, new in zip(results, tensors(func(*args, **kwargs)), strict=True):
                if id(old) not in inputs:
                    old.copy_(new)

        if not func.is_view:
            self.operations.append(again)
        return found


class Tape:
    """``model.programs.Executor``. recordings, launches: how many there were."""

    name = "a tape"

    def __init__(self) -> None:
        self.recordings = self.launches = 0
        self.hosts: list[Tensor] = []
        self.aside = False  # in work that the host does not wait for

    def record(self, work: Run) -> Run:
        self.recordings += 1
        work()  # as a first run of its own: the recording may not count on being the first
        recorder = _Recorder()
        with recorder:
            work()

        @torch.no_grad()
        def play() -> None:
            self.launches += 1
            with self._aside():
                for operation in recorder.operations:
                    operation()

        return play

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        self.hosts.append(torch.zeros(*shape, dtype=dtype))
        return self.hosts[-1]

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], behind: bool = True) -> Run:
        with self._aside():
            for source, target in pairs:
                target.copy_(source)
        return lambda: None

    @contextmanager
    def _aside(self) -> Iterator[None]:
        self.aside = True
        yield
        self.aside = False


class Guard(TorchDispatchMode):
    """Fails where the host would wait for the device, or take memory of it, beside the recordings of ``tape``.

    Memory that is neither ``tape.host`` nor made under the guard's eyes is taken for the device's. touched: the
    operations on it.
    """

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape
        self._made: list[Tensor] = []  # kept, so that no address is used twice
        self.touched: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if self._tape.aside:
            return found
        ours = {memory(each) for each in (*self._tape.hosts, *self._made)}
        on_device = [each for each in tensors((args, kwargs)) if memory(each) not in ours]
        name = func.overloadpacket.__name__
        if not on_device or name == "lift_fresh":  # the latter of numbers in Python
            self._made += tensors(found)
            return found
        refuse_waiting(name, args)
        self.touched.add(name)
        if name == "copy_" and memory(args[0]) in ours:
            raise Waited("a copy to the host")
        if name not in IN_PLACE:
            raise Waited(f"{name} beside the recordings")
        return found
