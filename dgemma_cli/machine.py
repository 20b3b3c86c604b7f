"""The machine: its GPUs, their memory and who uses it, the host's memory, and how torch was built.

NVIDIA's management library answers without a CUDA context (which would itself take memory), through the package
``nvidia-ml-py`` if it is installed; without it torch is asked. torch is imported in that case only.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

# The oldest cards that the supported builds of torch have kernels for.
OLDEST_CAPABILITY = (7, 5)

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_Found = tuple[tuple["Gpu", ...], str, str]  # the GPUs, or why there are none and what mends it


@dataclass(frozen=True, slots=True)
class User:
    """A process that holds memory of a GPU."""

    pid: int
    name: str
    used: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that this process may use. index: N of "cuda:N"; total, free: bytes; unified: they are the host's; uuid: ""
    where it is not told.
    """

    index: int
    name: str
    total: int
    free: int
    capability: tuple[int, int]
    driver: str
    unified: bool
    users: tuple[User, ...]
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """cores: of the CPU; total, free: bytes of the host's memory that this process may use; cuda: the CUDA version
    torch is built for, None without; no_gpu, remedy: if there is no usable GPU, why, and what mends it; triton:
    whether that is installed.
    """

    gpus: tuple[Gpu, ...]
    cores: int
    total: int
    free: int
    torch: str
    cuda: str | None
    no_gpu: str = ""
    remedy: str = ""
    triton: bool = True


def look(gpus_too: bool = True) -> Machine:
    """Look at this machine, or at its host alone. Raises nothing: what cannot be told is a reason in ``no_gpu``."""
    total, free = host_memory()
    version, cuda = torch_build()
    gpus, no_gpu, remedy = _gpus(cuda, total, free) if gpus_too else _none("GPUs were not asked for.", "")
    triton = importlib.util.find_spec("triton") is not None
    return Machine(gpus, len(os.sched_getaffinity(0)), total, free, version, cuda, no_gpu, remedy, triton)


def host_memory() -> tuple[int, int]:
    """Bytes in all and free, of the machine or of the control group that holds this process, whichever is less."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE))
    total, free = int(found["MemTotal"]) * 1024, int(found["MemAvailable"]) * 1024
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        statistics = (_CGROUP / "memory.stat").read_text()
    except (OSError, ValueError):  # no such group, or "max"
        return total, free
    reclaimable = re.search(r"^inactive_file (\d+)$", statistics, re.MULTILINE)
    used -= int(reclaimable[1]) if reclaimable else 0
    return min(total, limit), min(free, max(0, limit - used))


def torch_build() -> tuple[str, str | None]:
    """torch's version and the CUDA version it is built for, read from its files."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "not installed", None
    text = (Path(spec.origin).parent / "version.py").read_text()
    version = re.search(r"^__version__ = '([^']*)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda[^=\n]* = '([^']*)'", text, re.MULTILINE)
    return (version[1] if version else "unknown"), (cuda[1] if cuda else None)


def _gpus(cuda: str | None, host_total: int, host_free: int) -> _Found:
    try:
        import pynvml
    except ImportError:
        return _by_torch(cuda)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # the library comes with the driver
        return _none(
            "No NVIDIA driver is loaded.", "Install the driver of your NVIDIA card; nvidia-smi shows whether it works."
        )
    try:
        all_of_them = [_by_nvml(pynvml, index, host_total, host_free) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return _none(f"The NVIDIA driver does not answer: {error}.", "See what nvidia-smi says.")
    finally:
        pynvml.nvmlShutdown()
    return _usable(all_of_them, cuda)


def _usable(found: list[Gpu], cuda: str | None) -> _Found:
    """Those that CUDA would show to this process, numbered as it would; or why there are none."""
    if not found:
        return _none("There is no NVIDIA GPU.", "nvidia-smi lists those that the driver sees.")
    if cuda is None:
        return _none("This torch is built without CUDA.", "Install a CUDA build: https://pytorch.org/get-started")
    choice = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = found if choice is None else list(_visible(choice, found))
    if not shown:
        return _none(f"CUDA_VISIBLE_DEVICES={choice!r} hides all GPUs.", "unset CUDA_VISIBLE_DEVICES")
    return _new_enough([replace(gpu, index=index) for index, gpu in enumerate(shown)])


def _new_enough(shown: list[Gpu]) -> _Found:
    found = tuple(gpu for gpu in shown if gpu.capability >= OLDEST_CAPABILITY)
    if found:
        return found, "", ""
    (major, minor), (oldest, step) = shown[0].capability, OLDEST_CAPABILITY
    old = f"The {shown[0].name} is too old: it has compute capability {major}.{minor}, torch needs {oldest}.{step}."
    return _none(old, "A newer card is needed.")


def _none(why: str, remedy: str) -> _Found:
    return (), why, remedy


def _visible(choice: str, found: list[Gpu]) -> Iterator[Gpu]:
    """As CUDA reads CUDA_VISIBLE_DEVICES: numbers or beginnings of UUIDs, up to the first that is neither."""
    for token in (part.strip() for part in choice.split(",")):
        if token.isdecimal() and int(token) < len(found):
            yield found[int(token)]
            continue
        matching = [gpu for gpu in found if token.startswith("GPU-") and gpu.uuid.startswith(token)]
        if len(matching) != 1:
            return
        yield matching[0]


def _by_nvml(nvml: ModuleType, index: int, host_total: int, host_free: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    unified = False
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = int(memory.total), int(memory.free)
    except nvml.NVMLError_NotSupported:  # it has none of its own
        unified, total, free = True, host_total, host_free
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total=total,
        free=free,
        capability=(int(major), int(minor)),
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        unified=unified,
        users=tuple(_users(nvml, handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
    )


def _users(nvml: ModuleType, handle: object) -> Iterator[User]:
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:  # under WSL it is not told
        return
    for process in running:
        try:
            name = Path(_text(nvml.nvmlSystemGetProcessName(process.pid))).name
        except nvml.NVMLError:  # gone, or another user's
            name = "unknown"
        yield User(process.pid, name, int(process.usedGpuMemory or 0))


def _text(found: str | bytes) -> str:
    return found.decode(errors="replace") if isinstance(found, bytes) else found


def _by_torch(cuda: str | None) -> _Found:
    """What torch tells of the GPUs. It makes a CUDA context on each, and knows no other processes."""
    if not _driver_is_there():
        return _none(
            "No NVIDIA driver is loaded.", "Install the driver of your NVIDIA card; nvidia-smi shows whether it works."
        )
    if cuda is None:
        return _none("This torch is built without CUDA.", "Install a CUDA build: https://pytorch.org/get-started")
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        facts = torch.cuda.get_device_properties(index)
        capability = (int(facts.major), int(facts.minor))
        found.append(Gpu(index, facts.name, total, free, capability, "unknown", False, ()))
    if found:
        return _new_enough(found)
    choice = os.environ.get("CUDA_VISIBLE_DEVICES")
    if choice is not None:
        return _none(f"CUDA_VISIBLE_DEVICES={choice!r} leaves no GPU.", "unset CUDA_VISIBLE_DEVICES")
    return _none("There is no NVIDIA GPU.", "nvidia-smi lists those that the driver sees.")


def _driver_is_there() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists()  # the latter: under WSL
