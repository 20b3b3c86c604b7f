"""Times on a device, the rates that bound them, and the bytes that a step has to move."""

from __future__ import annotations

import time

import torch
from torch import nn

from dgemma_cli.engine.probe import wait
from dgemma_cli.engine.stopwatch import Work, milliseconds
from dgemma_cli.kernels.packed import Packed, PackedExperts
from dgemma_cli.model.model import Model

__all__ = [
    "Work",
    "copy_rate",
    "expert_rows",
    "kernels",
    "matrix_rate",
    "milliseconds",
    "seconds",
    "step_bytes",
    "wait",
]


def seconds(device: torch.device, work: Work) -> float:
    """By the host's clock, until the device is done."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def copy_rate(device: torch.device) -> float:
    """Bytes a second of a large copy, read and written ones counted."""
    size = (2 << 30) if device.type == "cuda" else (16 << 20)
    source = torch.empty(size, dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    return 2 * size / (milliseconds(device, [lambda: target.copy_(source)], 20)[0] / 1000)


def matrix_rate(device: torch.device) -> float:
    """Operations a second (a multiplication and an addition are two) of a large bfloat16 product on random numbers."""
    size = 8192 if device.type == "cuda" else 256
    a = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    b = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    out = torch.empty_like(a)
    return 2 * size**3 / (milliseconds(device, [lambda: torch.mm(a, b, out=out)], 20)[0] / 1000)


def step_bytes(model: Model, context: int, experts: float) -> dict[str, float]:
    """What a denoising step has to move at the least, by what it is: every weight once, those of ``experts`` experts a
    layer, and the keys and values that a canvas looks at. The embedding counts twice: as head, and for the
    self-conditioning.
    """
    config = model.config
    found = {
        "experts": 0.0,
        "dense": float(_bytes(model.self_conditioning)),
        "head and soft embedding": 0.0,
        "cache": 0.0,
    }
    found["head and soft embedding"] = 2.0 * _bytes(model.embed_tokens)
    for layer, shape in zip(model.stack.layers, config.layers, strict=True):
        of_experts = _bytes(layer.get_submodule("experts"))
        found["experts"] += of_experts * experts / config.num_experts
        found["dense"] += _bytes(layer) - of_experts
        seen = min(context, config.sliding_window - 1) if shape.sliding else context
        found["cache"] += 2 * shape.num_kv_heads * shape.head_dim * (seen + config.canvas_length) * model.dtype.itemsize
    return found


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def expert_rows(model: Model) -> str:
    """In which format the experts are."""
    experts = model.stack.layers[0].get_submodule("experts")
    packed = experts.gate_up if isinstance(experts, PackedExperts) else None
    return type(packed).__name__ if isinstance(packed, Packed) else str(model.dtype).removeprefix("torch.")


def kernels(device: torch.device, work: Work, repetitions: int) -> list[dict[str, object]]:
    """Where the time of ``work`` goes: by kernel, microseconds and launches each time, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    work()
    wait(device)
    with profile(activities=[activity]) as profiler:
        for _ in range(repetitions):
            work()
        wait(device)
    rows = []
    for event in profiler.key_averages():
        total = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        if total:
            rows.append({"kernel": event.key[:100], "us": total / repetitions, "launches": event.count / repetitions})
    return sorted(rows, key=lambda row: -float(row["us"]))
