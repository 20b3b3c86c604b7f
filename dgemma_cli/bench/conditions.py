"""Where a measurement was taken, and what disturbed it: the machine, its load, the GPU's clocks and other users."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import dgemma_cli
from dgemma_cli.machine import Gpu, Machine

_CPU_INFO, _ROOT = Path("/proc/cpuinfo"), Path(dgemma_cli.__file__).parent.parent
# Processes that want a core, on average over the last minute, before any of ours did much.
_BUSY = 0.5
# NVML's bits of reasons for a clock below its best that tell of heat or of too little power.
_REASONS = {0x04: "power limit", 0x08: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}


@dataclass(frozen=True, slots=True)
class Clocks:
    """Of a GPU at one moment: MHz, degrees Celsius, watts; throttled: why it runs below its best, if it does."""

    sm: int
    sm_most: int
    memory: int
    temperature: int
    watts: float
    throttled: tuple[str, ...]


def read_clocks(gpu: Gpu | None) -> Clocks | None:
    """The clocks of ``gpu`` now; None where nothing tells them (no nvidia-ml-py, or a part that keeps them secret)."""
    if gpu is None or not gpu.uuid:
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return _clocks(pynvml, pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _clocks(nvml: ModuleType, handle: Any) -> Clocks:
    reasons = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    return Clocks(
        sm=int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        sm_most=int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
        memory=int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        temperature=int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        watts=nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        throttled=tuple(dict.fromkeys(name for bit, name in _REASONS.items() if reasons & bit)),
    )


class Conditions:
    """What can be seen of a machine while it is measured.

    machine, load: as they were before anything was loaded; load: of the last minute, None where the system keeps none.
    """

    def __init__(self, machine: Machine, load: float | None) -> None:
        self.machine = machine
        self.load = load
        self.clocks: list[Clocks] = []
        self.gpu: Gpu | None = None

    @classmethod
    def now(cls, machine: Machine) -> Conditions:
        return cls(machine, os.getloadavg()[0] if hasattr(os, "getloadavg") else None)

    def choose(self, device: str) -> None:
        """The device that is measured: "cpu", "cuda" or "cuda:N"."""
        index = int(device.partition(":")[2] or 0)
        self.gpu = None if device == "cpu" else next((gpu for gpu in self.machine.gpus if gpu.index == index), None)

    def look(self) -> None:
        """Read the clocks, between two measurements."""
        found = read_clocks(self.gpu)
        if found is not None:
            self.clocks.append(found)

    def warnings(self, device: str) -> Iterator[str]:
        """What makes the figures of ``device`` less than they could be, a sentence each."""
        if device == "cpu":
            cores = self.machine.cores
            if self.load is not None and self.load >= _BUSY:
                noun = "core" if cores == 1 else "cores"
                yield f"other processes were running: load average {self.load:.1f} on {cores} {noun} before the start"
            return
        if self.gpu is not None:
            others = [user for user in self.gpu.users if user.pid != os.getpid()]
            if others:
                names = ", ".join(f"{user.name} ({user.pid})" for user in others)
                yield f"the GPU is shared with {names}"
        reasons = dict.fromkeys(reason for clocks in self.clocks for reason in clocks.throttled)
        if reasons:
            slowest = min(clocks.sm for clocks in self.clocks)
            yield f"the GPU was throttled ({', '.join(reasons)}): {slowest} of {self.clocks[0].sm_most} MHz"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        machine = self.machine
        return {
            "host": {
                "system": f"{platform.system()} {platform.release()}",
                "processor": processor(),
                "cores": machine.cores,
                "memory_bytes": machine.total,
                "load_average": self.load,
            },
            "gpu": None if self.gpu is None else _describe(self.gpu),
            "clocks": [asdict(clocks) | {"throttled": list(clocks.throttled)} for clocks in self.clocks],
            "python": platform.python_version(),
            "torch": machine.torch,
            "cuda": machine.cuda,
            "dgemma": dgemma_cli.__version__,
            "commit": commit(),
        }


def _describe(gpu: Gpu) -> dict[str, Any]:
    return {
        "name": gpu.name,
        "driver": gpu.driver,
        "memory_bytes": gpu.total,
        "capability": f"{gpu.capability[0]}.{gpu.capability[1]}",
        "users": [asdict(user) for user in gpu.users],
    }


def processor() -> str:
    """The CPU's name, as far as the system tells it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit this program was checked out at, "-dirty" behind it if files were changed; None if it was installed
    from a package.
    """
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
