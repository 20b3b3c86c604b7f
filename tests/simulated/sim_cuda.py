"""CUDA devices simulated on a CPU, so that all that runs on a GPU can be run, with the CPU's numbers, and held to its
rules.

What is held to rules:
- Places: tensors of a GPU, of another GPU and of the host do not meet, but for copies, indices and single numbers;
  Triton's kernels get tensors of the current GPU alone; a generator belongs to its device.
- Recordings (CUDA graphs): nothing in them may wait, read a number back, pin memory or copy to or from memory that is
  not pinned; streams that join one must be waited for; nothing of what is recorded happens before it is played; what
  it used must still be there then; and memory that two recordings of a pool may share is written by both.
- Order: work of two streams, or of a stream and the host, on the same memory (GPU or pinned) must wait for one another.
  Memory is not given back while another stream may be at it.
- Waiting, where ``torch.cuda.set_sync_debug_mode("error")`` forbids it.
- Fresh memory holds NaN, -1 and the like.
- ``torch.cuda``'s functions take the arguments that they take.

What is not simulated: time, how much memory there is (it is counted, not bounded), which kernels and dtypes a GPU has
(``sim_tensors`` knows some of it), rounding of a GPU's own, and several threads of the host as such: they count as one.
Triton's kernels run in its interpreter. Works with a torch that is built without CUDA.
"""

from __future__ import annotations

import ctypes
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sim_machine import DEVICES, Event, Graph, Machine, Stream, numbers_alone
from sim_tensors import GpuTensor, _on_gpu, compute, gpu_bytes, run, set_peak_back, tensors
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

AVAILABLE = torch.version.cuda is None
TOTAL, FREE = 80 * 10**9, 79 * 10**9
CAPABILITY = (9, 0)


class _Dispatch(TorchDispatchMode):
    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else all of torch's compiler is imported

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run(self._machine, func, args, dict(kwargs or {}))


class _Function(TorchFunctionMode):
    """What does not come by dispatch, or would be computed another way than on the CPU."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        machine = self._machine
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args = [self._place(each) for each in args]
        kwargs = {key: self._place(value) for key, value in (kwargs or {}).items()}
        if func is torch.Tensor.cuda:
            return args[0].to(torch.device("cuda", machine.device), *args[2:], **kwargs)
        if func is F.scaled_dot_product_attention:
            found = [each for each in tensors([args, kwargs]) if isinstance(each, GpuTensor)]
            if found:
                with machine.lock, numbers_alone():
                    return _on_gpu(machine, func, "scaled_dot_product_attention", args, kwargs, found)
        if isinstance(generator := kwargs.get("generator"), _Generator):
            on_gpu = any(isinstance(each, GpuTensor) for each in tensors([args, kwargs]))
            device = torch.device(kwargs.get("device") or ("cuda" if on_gpu else "cpu")).type
            if generator.of != device:
                machine.refuse(f"numbers for {device} are drawn by a generator for {generator.of}")
        if func in (torch.Tensor.tolist, torch.Tensor.numpy) and not isinstance(args[0], GpuTensor):
            machine.touch_on_host([(args[0], False)], func.__name__)
        return func(*args, **kwargs)

    def _place(self, value: Any) -> Any:
        """With its number, which torch would ask the driver for."""
        bare = isinstance(value, torch.device) and value.type == "cuda" and value.index is None
        if bare or (isinstance(value, str) and value == "cuda"):
            return torch.device("cuda", self._machine.device)
        return value


class _Generator(torch.Generator):
    """of: the type of its device. A generator of the CPU's draws for it."""

    of: str

    def __new__(cls, device: Any = "cpu") -> _Generator:
        found = super().__new__(cls, "cpu")
        found.of = torch.device(device).type
        return found


@contextmanager
def cuda() -> Iterator[Machine]:
    """With simulated GPUs, in all threads that begin meanwhile. Its ``problems`` are for the caller to see."""
    machine = Machine()
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        GpuTensor.machine = machine
        _guards(stack)
        _torch_cuda(machine, patch)
        _triton(machine, patch)
        _threads(machine, patch)
        overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # ``Module.to`` makes new parameters
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwriting)
        stack.enter_context(_modes(machine))
        yield machine


@contextmanager
def _modes(machine: Machine) -> Iterator[None]:
    lifting = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # ``torch.tensor`` is then a copy from the host, as it is on a GPU
    try:
        with _Dispatch(machine), _Function(machine):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifting)


def _guards(stack: ExitStack) -> None:
    """torch asks a registered guard to make a tensor's device the current one. Without CUDA there is none, and another
    one's, which does nothing, takes its place.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 20).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    of_cuda, of_meta = 1, 14
    guards[of_cuda] = guards[of_meta]
    stack.callback(guards.__setitem__, of_cuda, None)


def _threads(machine: Machine, patch: pytest.MonkeyPatch) -> None:
    begin = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def inner(thread: threading.Thread) -> None:
        with _modes(machine):
            begin(thread)

    patch.setattr(threading.Thread, "_bootstrap_inner", inner)


def _index(machine: Machine, device: Any) -> int:
    if device is None:
        return machine.device
    if isinstance(device, int):
        index = device
    else:
        device = torch.device(device)
        if device.type != "cuda":
            raise ValueError(f"Expected a cuda device, but got: {device}")
        index = machine.device if device.index is None else device.index
    if not 0 <= index < DEVICES:
        machine.refuse(f"there is no cuda:{index}")
    return index


def _torch_cuda(machine: Machine, patch: pytest.MonkeyPatch) -> None:
    def simulated(name: str, fake: Callable[..., Any]) -> None:
        real = getattr(torch.cuda, name)
        known = inspect.signature(real.__new__ if inspect.isclass(real) and name != "graph" else real)
        first = (None,) if inspect.isclass(real) else ()

        def checked(*args: Any, **kwargs: Any) -> Any:
            known.bind(*first, *args, **kwargs)
            return fake(*args, **kwargs)

        patch.setattr(torch.cuda, name, checked)

    def set_device(device: Any) -> None:
        machine.device = _index(machine, device)

    def synchronize(device: Any = None) -> None:
        index = _index(machine, device)
        for stream in machine.streams:
            if stream.device.index == index:
                machine.wait(stream, "torch.cuda.synchronize")

    def current(device: Any = None) -> Stream:
        return machine.stream(_index(machine, device))

    def set_stream(stream: Stream) -> None:
        machine.device = stream.device.index
        machine.own[stream.device.index] = stream

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        _index(machine, device)
        return FREE - gpu_bytes(machine)[0], TOTAL

    def counted(which: int) -> Callable[..., int]:
        return lambda device=None: gpu_bytes(machine)[which] if _index(machine, device) >= 0 else 0

    def properties(device: Any = None) -> SimpleNamespace:
        _index(machine, device)
        return SimpleNamespace(
            name="Simulated GPU", major=CAPABILITY[0], minor=CAPABILITY[1], total_memory=TOTAL, multi_processor_count=1
        )

    def set_sync_debug_mode(mode: str) -> None:
        machine.sync_mode = {0: "default", 1: "warn", 2: "error"}.get(mode, mode)  # type: ignore[call-overload]

    def new_stream(device: Any = None, priority: int = 0) -> Stream:
        return Stream(machine, _index(machine, device), f"stream {len(machine.streams)}")

    def new_event(enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> Event:
        return Event(machine, enable_timing)

    patch.setattr(torch.cuda, "_lazy_init", lambda: None)
    patch.setattr(torch.cuda, "is_initialized", lambda: True)
    patch.setattr(torch.cuda.graph, "default_capture_stream", None)
    patch.setattr(torch.cuda, "device", _device_context(machine))
    patch.setattr(torch, "Generator", _Generator)
    patch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    patch.setattr(torch.cuda, "CUDAGraph", lambda keep_graph=False: Graph(machine))
    for name, fake in {
        "is_available": lambda: True,
        "device_count": lambda: DEVICES,
        "current_device": lambda: machine.device,
        "set_device": set_device,
        "get_device_name": lambda device=None: properties(device).name,
        "get_device_capability": lambda device=None: (properties(device).major, properties(device).minor),
        "get_device_properties": properties,
        "mem_get_info": mem_get_info,
        "memory_allocated": counted(0),
        "memory_reserved": counted(0),
        "max_memory_allocated": counted(1),
        "reset_peak_memory_stats": lambda device=None: set_peak_back(machine),
        "empty_cache": lambda: None,
        "synchronize": synchronize,
        "current_stream": current,
        "default_stream": lambda device=None: machine.defaults[_index(machine, device)],
        "set_stream": set_stream,
        "stream": lambda stream: stream,
        "set_sync_debug_mode": set_sync_debug_mode,
        "is_current_stream_capturing": lambda: machine.stream(machine.device).capture is not None,
        "graph_pool_handle": lambda: object(),
        "Stream": new_stream,
        "Event": new_event,
        "manual_seed_all": lambda seed: None,
    }.items():
        simulated(name, fake)


def _device_context(machine: Machine) -> Callable[[Any], Any]:
    @contextmanager
    def device(which: Any) -> Iterator[None]:
        before = machine.device
        machine.device = _index(machine, which)
        try:
            yield
        finally:
            machine.device = before

    return device


def _triton(machine: Machine, patch: pytest.MonkeyPatch) -> None:
    """Kernels are launched on the numbers themselves, in Triton's interpreter."""
    from triton.runtime import driver, interpreter

    target = SimpleNamespace(backend="cuda", arch=CAPABILITY[0] * 10 + CAPABILITY[1], warp_size=32)
    patch.setattr(driver, "_active", SimpleNamespace(get_current_target=lambda: target))
    interpreted = interpreter.GridExecutor.__call__

    def launch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        name = executor.fn.__name__
        given = tensors([args, kwargs])
        for each in given:
            if not isinstance(each, GpuTensor):
                machine.refuse(f"{name} gets memory of the host's ({tuple(each.shape)}, {each.dtype})")
            if each.device.index != machine.device:
                machine.refuse(f"{name} is launched on cuda:{machine.device} with a tensor on {each.device}")
        inner = [each.inner for each in given]
        machine.launched.add(name)

        def kernel(*_: Any) -> None:
            interpreted(executor, *args, **kwargs)

        def unwrap(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: unwrap(each) for key, each in value.items()}
            if isinstance(value, list | tuple):
                return [unwrap(each) for each in value]
            return value.inner if isinstance(value, GpuTensor) else value

        args, kwargs = unwrap(args), unwrap(kwargs)
        with machine.lock, numbers_alone():
            # Which of them it writes is not told: it may be any.
            compute(machine, machine.stream(machine.device), kernel, name, inner, {}, [], inner)

    patch.setattr(interpreter.GridExecutor, "__call__", launch)
