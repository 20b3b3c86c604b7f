"""Tensors that say they are on a GPU and hold their numbers on the CPU, and the rules for their use."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from sim_machine import Machine, Stream, numbers_alone, spoil, storage_of
from torch import Tensor

# For these the host waits until the GPU has come so far: they give it a number, or a shape that hangs on numbers.
WAITING = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "item"}
# Fresh memory holds anything.
EMPTY = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"}
# Only the shape of their first argument counts.
LIKE = {f"{name}_like" for name in ("empty", "zeros", "ones", "full", "rand", "randn", "randint")} | {
    f"new_{name}" for name in ("empty", "zeros", "ones", "full", "empty_strided")
}
# Where torch takes a number of the host's, a tensor without dimensions, beside tensors on a GPU: its CUDA kernels of
# these are made for it (gpu_kernel_with_scalars), or it takes the number out of the tensor itself. Others
# that are made so are to be added here.
TAKES_NUMBERS = {
    name + end
    for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "bitwise_and", "bitwise_or",
                 "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift", "fill")
    for end in ("", "_")
}  # fmt: skip
# These give views or leave memory alone.
QUIET = {"_unsafe_view", "lift_fresh", "detach", "alias", "is_pinned", "_reshape_alias"}


class GpuTensor(torch.Tensor):
    """inner: the numbers, on the CPU. Views have views for it."""

    inner: Tensor
    machine: ClassVar[Machine]
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> GpuTensor:
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        found.inner = inner
        _Held.of(cls.machine).add(found)
        return found  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run(cls.machine, func, args, kwargs or {})

    def _wait(self, what: str) -> None:
        self.machine.wait(self.machine.stream(self.device.index), what)

    def tolist(self) -> Any:
        self._wait("tolist")
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.machine.refuse("the host asks where a GPU's tensor lies")

    def numpy(self, *, force: bool = False) -> Any:
        return self.machine.refuse("a GPU's tensor as one of numpy's")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        found = self.clone()
        return torch.nn.Parameter(found, requires_grad=False) if isinstance(self, torch.nn.Parameter) else found

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"{self.device}: {self.inner!r}"


class _Held:
    """Which memory of the GPUs is held, by how many tensors, and how much that is."""

    _all: ClassVar[weakref.WeakKeyDictionary[Machine, _Held]] = weakref.WeakKeyDictionary()

    def __init__(self, machine: Machine) -> None:
        self._machine = weakref.proxy(machine)
        # With the stream that it was taken for; None for a recording, whose pool keeps it.
        self._held: dict[int, tuple[torch.UntypedStorage, Stream | None]] = {}
        self._count: dict[int, int] = {}
        self._watched: dict[int, weakref.ref[Tensor]] = {}
        self.now = self.most = 0

    @classmethod
    def of(cls, machine: Machine) -> _Held:
        if machine not in cls._all:
            cls._all[machine] = cls(machine)
        return cls._all[machine]

    def add(self, tensor: GpuTensor) -> None:
        number = storage_of(tensor.inner)
        if not number:
            return
        if number not in self._held:
            storage = tensor.inner.untyped_storage()
            stream = self._machine.stream(tensor.device.index)
            self._held[number] = storage, stream if stream.capture is None else None
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
        self._count[number] = self._count.get(number, 0) + 1
        key = id(tensor)
        self._watched[key] = weakref.ref(tensor, lambda _: self._gone(number, key))

    def _gone(self, number: int, key: int) -> None:
        """One tensor less. Where it was the last one, the memory may be had by others."""
        self._watched.pop(key, None)
        self._count[number] -= 1
        if self._count[number]:
            return
        del self._count[number]
        storage, stream = self._held.pop(number)
        self.now -= storage.nbytes()
        machine = self._machine
        if stream is None:
            return
        line = stream.line.copy()
        line.join(machine.host.clock)
        at_it = machine.accesses.free(number, line)
        if at_it is not None:
            machine.problems.append(f"memory is given back while {at_it} may be at it")
        spoil(storage)  # a graph that still plays with it gets garbage


def gpu_bytes(machine: Machine) -> tuple[int, int]:
    """Held now, and at the most since that was last set back."""
    held = _Held.of(machine)
    return held.now, held.most


def set_peak_back(machine: Machine) -> None:
    held = _Held.of(machine)
    held.most = held.now


def tensors(value: Any) -> list[Tensor]:
    """Those in it, at any depth."""
    if isinstance(value, Tensor):
        return [value]
    found: list[Tensor] = []
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, list | tuple | dict):
            found += tensors(each)
    return found


def mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        parts = [mapped(change, each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


@cache
def _written(func: Any) -> tuple[frozenset[int], frozenset[str]]:
    """Which arguments are written to, by place and by name."""
    schema = getattr(func, "_schema", None)
    places, names = set(), set()
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.alias_info is not None and argument.alias_info.is_write:
            places.add(place)
            names.add(argument.name)
    return frozenset(places), frozenset(names)


def written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    places, names = _written(func)
    found = [each for place, each in enumerate(args) if place in places]
    return tensors(found + [each for name, each in kwargs.items() if name in names])


def name_of(func: Any) -> str:
    packet = getattr(func, "overloadpacket", func)
    return str(packet.__name__)


def run(machine: Machine, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation of torch's: on the host if all is there, else on a GPU."""
    with machine.lock, numbers_alone():
        where = kwargs.get("device")
        on_gpu = [each for each in tensors([args, kwargs]) if isinstance(each, GpuTensor)]
        if not on_gpu and (where is None or torch.device(where).type != "cuda"):
            return _on_host(machine, func, args, kwargs)
        name = name_of(func)
        if name == "copy_":
            return _copy(machine, *args, **kwargs)
        if name == "_to_copy":
            return _to_copy(machine, func, args, kwargs)
        return _on_gpu(machine, func, name, args, kwargs, on_gpu)


def _on_host(machine: Machine, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    name = name_of(func)
    if name == "is_pinned":
        return storage_of(args[0]) in machine.pinned
    pin = kwargs.pop("pin_memory", None) if name != "_pin_memory" else True
    if not getattr(func, "is_view", False) and name not in QUIET:
        changed = {id(each) for each in written(func, args, kwargs)}
        machine.touch_on_host(((each, id(each) in changed) for each in tensors([args, kwargs])), name)
    found = args[0].clone() if name == "_pin_memory" else func(*args, **kwargs)
    if pin:
        if machine.capturing():
            machine.refuse("memory is pinned in a recording")
        machine.pinned[storage_of(found)] = found.untyped_storage()
    return found


def _on_gpu(
    machine: Machine, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], on_gpu: Sequence[GpuTensor]
) -> Any:
    machine.ran.add(name)
    where = kwargs.get("device")
    device = on_gpu[0].device if where is None else torch.device(where)
    _check_places(machine, name, args, kwargs, on_gpu, device)
    changed = written(func, args, kwargs)
    if any(not isinstance(each, GpuTensor) for each in changed):
        machine.refuse(f"{name} writes to the host's memory what a GPU computes")
    if device.type != "cuda":  # only the shape counts
        return func(*mapped(_inner, args), **{**kwargs, "device": device})
    stream = machine.stream(device.index)
    if name in WAITING or (name.startswith("index") and _by_mask_or_host(args)):
        machine.wait(stream, name)
    args, kwargs = mapped(_inner, args), {key: mapped(_inner, value) for key, value in kwargs.items()}
    if where is not None:
        kwargs["device"] = torch.device("cpu")
    kwargs.pop("pin_memory", None)
    originals = {id(each.inner): each for each in on_gpu}
    writes = [_inner(each) for each in changed]
    reads = [each.inner for each in on_gpu if id(each) not in {id(one) for one in changed} and name not in LIKE]
    found = compute(machine, stream, func, name, args, kwargs, reads, writes)
    for each in changed:
        if each.shape != _inner(each).shape:
            machine.refuse(f"{name} gives its output another shape")
    return mapped(lambda each: originals[id(each)] if id(each) in originals else GpuTensor(each, device), found)


def compute(
    machine: Machine,
    stream: Stream,
    func: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    reads: Sequence[Tensor],
    changed: Sequence[Tensor],
) -> Any:
    """Work for a stream, on the numbers themselves: recorded if the stream is. reads, changed: of the memory that
    others may be at.
    """
    if getattr(func, "is_view", False) or name in QUIET:
        return func(*args, **kwargs)
    given = tensors([args, dict(kwargs)])
    writes = _rows(name, args) or list(changed)
    machine.launch(stream, name, reads, writes)
    capture = stream.capture
    for each in changed if capture is not None else ():
        capture.will_write(each)  # type: ignore[union-attr]
    # A kernel of Triton's has no results whose shapes are to be found.
    found = None if capture is not None and name in machine.launched else func(*args, **kwargs)
    before = {id(each) for each in given}
    results = [each for each in tensors(found) if id(each) not in before]
    known = {storage_of(each) for each in given}
    fresh = [each for each in results if storage_of(each) not in known]
    if name in EMPTY:
        for each in fresh:
            spoil(each.untyped_storage())
    if capture is None:
        machine.launch(stream, name, [], fresh)
        return found
    for each in fresh:
        capture.graph.made[storage_of(each)] = each.untyped_storage()

    def again() -> None:
        for old, new in zip(results, tensors(func(*args, **kwargs))[-len(results) :], strict=False):
            if old.data_ptr() != new.data_ptr():
                old.copy_(new)

    if name not in EMPTY:
        capture.graph.add(name, again, reads, [*writes, *fresh])
    return found


def _inner(tensor: Tensor) -> Tensor:
    return tensor.inner if isinstance(tensor, GpuTensor) else tensor


def _rows(name: str, args: Sequence[Any]) -> list[Tensor]:
    """What ``index_copy_`` writes to: some rows of a tensor, beside which others may be read."""
    if name != "index_copy_" or args[1] != 0:
        return []
    return [args[0][row] for row in args[2].tolist() if row >= 0]


def _by_mask_or_host(args: Sequence[Any]) -> bool:
    """Whether tensors are indexed by a mask, or by indices of the host's, which are copied first."""
    indices = [each for each in tensors(args[1]) if each.dim()] if len(args) > 1 else []
    return any(each.dtype == torch.bool or not isinstance(each, GpuTensor) for each in indices)


def _check_places(
    machine: Machine,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    on_gpu: Sequence[GpuTensor],
    device: torch.device,
) -> None:
    """Refuses tensors of the host, or of another GPU, where a GPU computes."""
    if name in LIKE:
        return
    if any(each.device != device for each in on_gpu):
        machine.refuse(f"{name} of tensors on {device} and {next(e.device for e in on_gpu if e.device != device)}")
    given = [each for each in tensors([args, dict(kwargs)]) if not isinstance(each, GpuTensor)]
    indices = {id(each) for each in tensors(args[1])} if name in ("index", "index_put", "index_put_") else set()
    for each in given:
        if each.dim() == 0 and name in TAKES_NUMBERS:
            continue
        if id(each) in indices and isinstance(args[0], GpuTensor):
            continue
        machine.refuse(f"{name} of tensors on {device} and on the CPU ({tuple(each.shape)}, {each.dtype})")


def _copy(machine: Machine, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """``aten.copy_`` where a GPU's tensor is on either side."""
    machine.ran.add("copy_")
    ends = [each for each in (target, source) if isinstance(each, GpuTensor)]
    stream = machine.stream(ends[0].device.index if len(ends) == 1 else source.device.index)
    one, other, waits, flies = _inner(target), _inner(source), False, False
    what = f"a copy from {source.device} to {target.device}"
    if len(ends) == 1:
        # torch goes by way of other memory of the host's, which is not pinned, where the two sides differ in more.
        alike = one.dtype == other.dtype and one.is_contiguous() and other.is_contiguous() and one.shape == other.shape
        host = other if isinstance(target, GpuTensor) else one
        flies = non_blocking and storage_of(host) in machine.pinned
        if flies and not alike:
            machine.refuse(f"{what} that is not to be waited for, by way of memory that is not pinned")
        waits = not non_blocking or (not flies and not isinstance(target, GpuTensor))
        if waits:
            machine.wait(stream, what)
        elif not flies and stream.capture is not None:
            machine.refuse(f"{what} in a recording, of memory that is not pinned")
    reads, writes = ([_inner(end)] if isinstance(end, GpuTensor) or flies else [] for end in (source, target))
    compute(machine, stream, torch.ops.aten.copy_.default, what, [one, other], {}, reads, writes)
    if waits:
        machine.host.join(stream.line.clock)
    return target


def _to_copy(machine: Machine, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """``aten._to_copy``: to another dtype or device."""
    source, non_blocking = args[0], kwargs.pop("non_blocking", False)
    device = torch.device(kwargs.pop("device", None) or source.device)
    kwargs.pop("pin_memory", None)
    if device == source.device:
        return _on_gpu(machine, func, "_to_copy", args, kwargs, [source])  # type: ignore[no-any-return]
    machine.ran.add("_to_copy")
    inner = _inner(source)
    dtype = kwargs.pop("dtype", None) or inner.dtype
    shape = torch.empty_like(inner, dtype=dtype)
    if device.type == "cuda":
        made: Tensor = GpuTensor(shape, device)
        if machine.stream(device.index).capture is not None:
            machine.refuse("a tensor of the host's is moved to the GPU in a recording")
    else:
        made = shape
        if non_blocking:
            machine.pinned[storage_of(made)] = made.untyped_storage()  # as torch does
    if inner.dtype != dtype:  # the conversion comes before or behind the copy
        inner = inner.to(dtype)
        source = GpuTensor(inner, source.device) if isinstance(source, GpuTensor) else inner
    return _copy(machine, made, source, non_blocking)
