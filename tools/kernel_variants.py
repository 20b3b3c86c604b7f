"""Every launch of a Triton kernel that the real model makes, for ``compile_kernels``: its shapes, on tensors without
memory. A variant is a function that calls the public function of a kernel's file just as the engine does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgemma_cli.kernels import grouping

Variant = Callable[[], object]
VARIANTS: dict[str, Variant] = {}

CANVAS, CHUNK = 256, 1024  # tokens in a denoising step, and at most in an encoder pass
HIDDEN, EXPERTS, TOP_K, INNER = 2816, 128, 8, 704


def variant(name: str) -> Callable[[Variant], Variant]:
    """Register a function under ``name``: what it launches is compiled."""

    def register(launches: Variant) -> Variant:
        if name in VARIANTS:
            raise ValueError(f"two variants are called {name}")
        VARIANTS[name] = launches
        return launches

    return register


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """A tensor that has a shape only."""
    return torch.empty(shape, dtype=dtype, device="meta")


for _tokens in (CANVAS, CHUNK):

    @variant(f"group_by_expert {_tokens}")
    def _group(tokens: int = _tokens) -> None:
        grouping.group_by_expert(empty(tokens, TOP_K, dtype=torch.int32), EXPERTS, 32)
