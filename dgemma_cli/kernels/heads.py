"""From the fused projection to what attention reads: head norms, rotation, and keys and values put into the cache.

The reference is ``model.attention.Attention`` up to the call of its memory, with ``model.rotary``.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.launch import require

_ROW = 2048  # numbers a program holds: 16 for each of 128 threads


def split_heads(
    qkv: Tensor,
    heads: int,
    kv_heads: int,
    q_norm: Tensor,
    k_norm: Tensor,
    cos: Tensor,
    sin: Tensor,
    k: Tensor,
    v: Tensor,
    start: Tensor,
    eps: float,
    out: Tensor | None = None,
) -> Tensor:
    """Norm and rotate queries and keys, norm values, and write keys and values behind what a cache keeps.

    qkv: [N, rows * d]: a token's query heads, key heads and, if there are so many rows, value heads. Without value
    heads, values are the keys as projected. q_norm, k_norm: [d]; cos, sin: float32 [N, d / 2].
    k, v: [kv_heads, capacity, d]; start: int32 [1] on the device: token n goes to position start + n. What would lie
    beyond the capacity is not written. Returns queries [N, heads, d].
    """
    tokens, dim = qkv.shape[0], k.shape[2]
    out = qkv.new_empty(tokens, heads, dim) if out is None else out
    require(qkv, q_norm, k_norm, cos, sin, k, v, start, out)
    own_values = qkv.shape[1] != (heads + kv_heads) * dim
    if qkv.shape[1] != (heads + (1 + own_values) * kv_heads) * dim or dim & (dim - 1):
        raise ValueError(f"qkv of {qkv.shape[1]} columns for {heads} and {kv_heads} heads of {dim}")
    # A program takes as many heads as fit a row of its registers, all of one kind.
    group = math.gcd(heads, kv_heads)
    group = min(group & -group, max(1, _ROW // dim))
    groups = (heads + (1 + own_values) * kv_heads) // group
    _split_heads[(tokens, groups)](
        qkv, q_norm, k_norm, cos, sin, out, k, v, start, eps, k.shape[1],
        heads, kv_heads, dim, group, own_values, num_warps=max(1, min(4, group * dim // 512)),
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["capacity"])
def _split_heads(
    qkv_ptr, q_norm_ptr, k_norm_ptr, cos_ptr, sin_ptr, q_ptr, k_ptr, v_ptr, start_ptr, eps, capacity,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, GROUP: tl.constexpr, OWN_VALUES: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = DIM // 2
    ROWS: tl.constexpr = HEADS + KV_HEADS + (KV_HEADS if OWN_VALUES else 0)
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * GROUP + tl.arange(0, GROUP)[:, None]  # of all kinds, [GROUP, 1]
    column = tl.arange(0, HALF)[None, :]
    at = qkv_ptr + (token * ROWS + head) * DIM + column
    left = tl.load(at).to(tl.float32)
    right = tl.load(at + HALF).to(tl.float32)
    scale = tl.rsqrt((tl.sum(left * left, 1) + tl.sum(right * right, 1)) / DIM + eps)[:, None]
    left *= scale
    right *= scale

    first = tl.program_id(1) * GROUP
    position = tl.load(start_ptr) + token + tl.zeros((1, HALF), tl.int64)
    fits = position < capacity
    if first >= HEADS:
        kv_head = (head - HEADS) % KV_HEADS
        to = (kv_head.to(tl.int64) * capacity + position) * DIM + column
        if first >= HEADS + KV_HEADS or not OWN_VALUES:
            tl.store(v_ptr + to, left, mask=fits)
            tl.store(v_ptr + to + HALF, right, mask=fits)
    if first < HEADS + KV_HEADS:
        weight_ptr = q_norm_ptr if first < HEADS else k_norm_ptr
        left *= tl.load(weight_ptr + column).to(tl.float32)
        right *= tl.load(weight_ptr + HALF + column).to(tl.float32)
        cos = tl.load(cos_ptr + token * HALF + column)
        sin = tl.load(sin_ptr + token * HALF + column)
        turned_left = left * cos - right * sin
        turned_right = right * cos + left * sin
        if first < HEADS:
            to_q = q_ptr + (token * HEADS + head) * DIM + column
            tl.store(to_q, turned_left)
            tl.store(to_q + HALF, turned_right)
        else:
            kv_head = (head - HEADS) % KV_HEADS
            to_k = k_ptr + (kv_head.to(tl.int64) * capacity + position) * DIM + column
            tl.store(to_k, turned_left, mask=fits)
            tl.store(to_k + HALF, turned_right, mask=fits)
