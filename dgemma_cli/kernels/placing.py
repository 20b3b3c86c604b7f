"""Which GPU is the current one: each thread has its own, and Triton launches there, wherever the tensors are."""

from __future__ import annotations

import contextlib

import torch


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """``device`` is the current one inside, in the calling thread."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
