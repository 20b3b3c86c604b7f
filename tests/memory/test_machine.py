"""Looking at a machine: simulated drivers, the host's memory, and how torch was built."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dgemma_cli import machine
from dgemma_cli.machine import Gpu, User


class NvmlError(Exception):
    pass


class NotSupported(NvmlError):
    pass


@dataclass
class Card:
    name: str | bytes = "Fake 24"
    total: int = 24 * 10**9
    free: int = 23 * 10**9
    capability: tuple[int, int] = (8, 9)
    unified: bool = False
    users: dict[int, tuple[str, int]] = field(default_factory=dict)
    hides_users: bool = False


class FakeNvml:
    """The management library's functions that are used, on cards made up."""

    NVMLError = NvmlError
    NVMLError_NotSupported = NotSupported

    def __init__(self, *cards: Card, broken: str = "") -> None:
        self.cards, self.broken, self.open = cards, broken, 0

    def nvmlInit(self) -> None:
        if self.broken == "nvmlInit":
            raise NvmlError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        if self.broken == "nvmlDeviceGetCount":
            raise NvmlError("GPU is lost")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return self.cards[index]

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> Any:
        if card.unified:
            raise NotSupported
        return SimpleNamespace(total=card.total, free=card.free)

    def nvmlDeviceGetCudaComputeCapability(self, card: Card) -> tuple[int, int]:
        return card.capability

    def nvmlDeviceGetName(self, card: Card) -> str | bytes:
        return card.name

    def nvmlDeviceGetUUID(self, card: Card) -> str:
        return f"GPU-{self.cards.index(card)}abc"

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.95"

    def nvmlDeviceGetComputeRunningProcesses(self, card: Card) -> list[Any]:
        if card.hides_users:
            raise NotSupported
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, (_, used) in card.users.items()]

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        name = next(card.users[pid][0] for card in self.cards if pid in card.users)
        if not name:
            raise NvmlError("Not Found")
        return name


@pytest.fixture(autouse=True)
def _cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "torch_build", lambda: ("2.13.0+cu130", "13.0"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def seen(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml, visible: str | None = None) -> machine.Machine:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = machine.look()
    assert nvml.open == 0
    assert bool(found.gpus) != bool(found.no_gpu)
    assert bool(found.no_gpu) == bool(found.remedy)
    return found


def test_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(name=b"NVIDIA Fake", users={7: ("/usr/lib/xorg/Xorg", 300_000_000), 8: ("", 5)})
    found = seen(monkeypatch, FakeNvml(card))
    users = (User(7, "Xorg", 300_000_000), User(8, "unknown", 5))
    assert found.gpus == (Gpu(0, "NVIDIA Fake", 24 * 10**9, 23 * 10**9, (8, 9), "580.95", False, users, "GPU-0abc"),)
    assert (found.torch, found.cuda) == ("2.13.0+cu130", "13.0")


def test_processes_that_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, FakeNvml(Card(hides_users=True))).gpus[0].users == ()


def test_unified_memory_is_the_host_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "host_memory", lambda: (128 * 10**9, 100 * 10**9))
    gpu = seen(monkeypatch, FakeNvml(Card(unified=True))).gpus[0]
    assert (gpu.total, gpu.free, gpu.unified) == (128 * 10**9, 100 * 10**9, True)


THREE = [Card(name="a"), Card(name="b"), Card(name="c", capability=(6, 1))]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [(0, "a"), (1, "b")]),  # the third is too old
        ("1", [(0, "b")]),
        ("1,0", [(0, "b"), (1, "a")]),
        ("2,1", [(1, "b")]),
        ("GPU-1", [(0, "b")]),
        ("0,7,1", [(0, "a")]),  # nothing counts behind a number that is none
    ],
)
def test_visible_devices(monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[tuple[int, str]]) -> None:
    found = seen(monkeypatch, FakeNvml(*THREE), visible)
    assert [(gpu.index, gpu.name) for gpu in found.gpus] == expected


@pytest.mark.parametrize("visible", ["", "-1", "9", "GPU-x", "GPU-", "NoDevFiles"])
def test_all_hidden(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    found = seen(monkeypatch, FakeNvml(*THREE), visible)
    assert found.no_gpu == f"CUDA_VISIBLE_DEVICES={visible!r} hides all GPUs."
    assert "unset CUDA_VISIBLE_DEVICES" in found.remedy


def test_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, FakeNvml(Card(name="Old", capability=(7, 0))))
    assert found.no_gpu == "The Old is too old: it has compute capability 7.0, torch needs 7.5."


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, FakeNvml(broken="nvmlInit")).no_gpu == "No NVIDIA driver is loaded."


def test_a_driver_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, FakeNvml(Card(), broken="nvmlDeviceGetCount"))
    assert found.no_gpu == "The NVIDIA driver does not answer: GPU is lost."


def test_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, FakeNvml()).no_gpu == "There is no NVIDIA GPU."


def test_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "torch_build", lambda: ("2.13.0+cpu", None))
    found = seen(monkeypatch, FakeNvml(Card()))
    assert found.no_gpu == "This torch is built without CUDA."


def test_without_the_library_torch_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On machines with a driver; the test's own has one or not."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(machine, "_driver_is_there", lambda: True)
    facts = SimpleNamespace(name="Fake", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (70 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: facts)
    gpu = machine.look().gpus[0]
    assert (gpu.name, gpu.total, gpu.free, gpu.capability) == ("Fake", 80 * 10**9, 70 * 10**9, (9, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert machine.look().no_gpu == "There is no NVIDIA GPU."
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert machine.look().no_gpu == "CUDA_VISIBLE_DEVICES='5' leaves no GPU."
    monkeypatch.setattr(machine, "_driver_is_there", lambda: False)
    assert machine.look().no_gpu == "No NVIDIA driver is loaded."


def test_torch_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert machine.torch_build() == (torch.__version__, torch.version.cuda)


def test_host_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:   600 kB\n")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine.host_memory() == (1_024_000, 614_400)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 200000\n")
    assert machine.host_memory() == (1_024_000, 614_400)
    (tmp_path / "memory.max").write_text("700000\n")
    assert machine.host_memory() == (700_000, 400_000)
