"""What is said of a busy CPU, and of a GPU that is shared or held back (a simulated driver)."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dgemma_cli.bench import conditions
from dgemma_cli.bench.conditions import Clocks, Conditions, read_clocks
from dgemma_cli.machine import Gpu, Machine, User

GPU = Gpu(1, "Fake", 24 * 10**9, 20 * 10**9, (8, 9), "580.95", False, (User(7, "Xorg", 10**8),), "GPU-1")


def machine(*gpus: Gpu) -> Machine:
    return Machine(gpus, 2, 8 * 10**9, 4 * 10**9, "2.13.0", None)


class NvmlError(Exception):
    pass


def driver(reasons: int = 0, broken: bool = False) -> Any:
    def init() -> None:
        if broken:
            raise NvmlError

    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: reasons,
        nvmlDeviceGetClockInfo=lambda _, which: {1: 1200, 2: 2600}[which],
        nvmlDeviceGetMaxClockInfo=lambda _, which: 1980,
        nvmlDeviceGetTemperature=lambda *_: 84,
        nvmlDeviceGetPowerUsage=lambda _: 699_500,
    )


def told(found: Conditions, device: str) -> list[str]:
    found.choose(device)
    found.look()
    return list(found.warnings(device))


@pytest.mark.parametrize(("load", "warns"), [(None, False), (0.1, False), (3.4, True)])
def test_a_busy_cpu(load: float | None, warns: bool) -> None:
    found = told(Conditions(machine(), load), "cpu")
    assert len(found) == warns
    if warns:
        assert found[0] == "other processes were running: load average 3.4 on 2 cores before the start"


def test_a_shared_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    assert told(Conditions(machine(GPU), 9.0), "cuda:1") == ["the GPU is shared with Xorg (7)"]
    mine = Gpu(0, "Fake", 1, 1, (8, 9), "1", False, (User(os.getpid(), "python", 5),), "GPU-0")
    assert told(Conditions(machine(mine), 9.0), "cuda") == []


def test_a_throttled_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(reasons=0x04 | 0x20 | 0x40 | 0x01))  # 1: idle, which is no fault
    found = Conditions(machine(GPU), 0.0)
    assert told(found, "cuda:1")[1] == "the GPU was throttled (power limit, heat): 1200 of 1980 MHz"
    assert found.clocks == [Clocks(1200, 1980, 2600, 84, 699.5, ("power limit", "heat"))]
    described = found.as_dict()
    assert described["gpu"]["driver"] == "580.95"
    assert described["clocks"][0]["throttled"] == ["power limit", "heat"]


def test_clocks_that_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_clocks(None) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert read_clocks(GPU) is None
    monkeypatch.setitem(sys.modules, "pynvml", driver(broken=True))
    assert read_clocks(GPU) is None


def test_the_commit_is_that_of_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(conditions, "_ROOT", tmp_path)
    assert conditions.commit() is None  # installed from a package
    monkeypatch.undo()
    found = conditions.commit()
    assert found is None or len(found.removesuffix("-dirty")) == 40
