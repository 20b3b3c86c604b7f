"""Every launch of a Triton kernel that the real model makes, for ``compile_kernels``: its shapes, on tensors without
memory. A variant is a function that calls the public function of a kernel's file just as the engine does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgemma_cli.kernels import attention, grouping, heads, norms, router

Variant = Callable[[], object]
VARIANTS: dict[str, Variant] = {}

CANVAS, CHUNK = 256, 1024  # tokens in a denoising step, and at most in an encoder pass
HIDDEN, EXPERTS, TOP_K, INNER = 2816, 128, 8, 704
HEADS, SLIDING, FULL, WINDOW = 16, (8, 256), (2, 512), 1024  # key heads and size of a head, by kind of layer
CAPACITY, EPS = 8192, 1e-6


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


@variant("norms")
def _norms() -> None:
    x, weight = empty(CANVAS, HIDDEN), empty(HIDDEN)
    norms.rms_norm(x, weight, EPS)
    norms.rms_norm(x, None, EPS)
    norms.residual_norms(x, x, weight, weight, weight, empty(HIDDEN, dtype=torch.float32), EPS)
    norms.combine(x, x, empty(CANVAS, TOP_K, HIDDEN), weight, weight, weight, empty(1), weight, EPS)


@variant("router")
def _router() -> None:
    router.route(empty(CANVAS, EXPERTS), TOP_K, empty(EXPERTS))


@variant("heads")
def _heads() -> None:
    start = empty(1, dtype=torch.int32)
    for kv_heads, dim in (SLIDING, FULL):
        rows = HEADS + (2 if dim == SLIDING[1] else 1) * kv_heads
        cache, turn = empty(kv_heads, CAPACITY, dim), empty(CANVAS, dim // 2, dtype=torch.float32)
        qkv, weight = empty(CANVAS, rows * dim), empty(dim)
        heads.split_heads(qkv, HEADS, kv_heads, weight, weight, turn, turn, cache, cache, start, EPS)


for _name, (_kv_heads, _dim) in (("sliding", SLIDING), ("full", FULL)):
    for _splits in (1, 4):

        @variant(f"attention {_name} {'whole' if _splits == 1 else 'split'}")
        def _attention(kv_heads: int = _kv_heads, dim: int = _dim, splits: int = _splits) -> None:
            start, q, cache = empty(1, dtype=torch.int32), empty(CANVAS, HEADS, dim), empty(kv_heads, CAPACITY, dim)
            window = WINDOW if dim == SLIDING[1] else None
            attention.attend_canvas(q, cache, cache, start, start, splits=splits)
            attention.attend_causal(q, cache, cache, start, window, splits=splits)
