"""What a device does at its best: multiply-adds of a large matrix product, bytes of a large copy."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from dgemma_cli.engine.probe import wait

_ROWS, _INNER = 512, 1024
# Short products, and many: on a busy machine one of them runs undisturbed.
_PRODUCTS, _COPIES = 40, 12

Clock = Callable[[], float]


def matmul_rate(device: torch.device, dtype: torch.dtype, clock: Clock = time.perf_counter) -> float:
    """Multiply-adds a second of a [512, 1024] x [1024, 1024] product, the best of several: what other processes take
    away is no property of the device.
    """
    left = torch.randn(_ROWS, _INNER, device=device).to(dtype)
    right = torch.randn(_INNER, _INNER, device=device).to(dtype)
    out = torch.empty(_ROWS, _INNER, dtype=dtype, device=device)
    best = _best(lambda: torch.mm(left, right, out=out), device, _PRODUCTS, clock)
    return _ROWS * _INNER * _INNER / best


def bandwidth(device: torch.device, clock: Clock = time.perf_counter, most: int = 1 << 30) -> float:
    """Bytes a second that move, read and written ones both, the best of a large copy and a large sum.

    most: bytes of the copied array; a quarter of a GPU's free memory bounds it, too.
    """
    if device.type == "cuda":
        most = min(most, torch.cuda.mem_get_info(device)[0] // 4)
    size = max(1, most // 4)  # float32 values
    source = torch.ones(size, dtype=torch.float32, device=device)
    read = 4 * size / _best(source.sum, device, _COPIES, clock)
    target = torch.empty_like(source)
    return max(read, 8 * size / _best(lambda: target.copy_(source), device, _COPIES, clock))


def _best(work: Callable[[], object], device: torch.device, times: int, clock: Clock) -> float:
    """Seconds of the fastest of so many, after one that does not count."""
    work()
    taken = []
    for _ in range(times):
        wait(device)
        begun = clock()
        work()
        wait(device)
        taken.append(clock() - begun)
    return min(taken)
