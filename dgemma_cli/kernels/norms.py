"""A layer's norms and residual sums, fused so that the residual stream is read and written once between two products.

All arithmetic is float32 and rounded once, when stored; sums run in a fixed order. One program a row. What a product
reads is written in the planes that it is read in. The reference is ``model.norm.rms_norm`` in the order of
``model.stack.Layer``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.launch import require, row_warps
from dgemma_cli.kernels.planes import planar, rows_in


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, planes: int = 1, out: Tensor | None = None) -> Tensor:
    """Each row of ``x`` [N, H] divided by its root mean square, times ``weight`` [H] if there is one; in ``planes``."""
    rows, columns = x.shape
    out = rows_in(planes, rows, columns, x, out)
    require(x, out, weight)
    block = triton.next_power_of_2(columns)
    weights = x if weight is None else weight  # never read then
    _rms_norm[(rows,)](x, weights, out, eps, columns, block, weight is not None, planes, num_warps=row_warps(block))
    return out


def residual_norms(
    x: Tensor,
    attended: Tensor,
    post_weight: Tensor,
    dense_weight: Tensor,
    routed_weight: Tensor,
    router_weight: Tensor,
    eps: float,
    dense_planes: int = 1,
    routed_planes: int = 1,
    out: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Between attention and the feed-forward parts: x' = x + norm(attended) * post_weight, and what three readers of
    x' ask for: the inputs of the dense MLP, of the experts and of the router, which differ in the weight alone.

    x, attended: [N, H]; weights: [H], router_weight with the router's 1/sqrt(H) in it.
    Returns x', dense input, routed input, router input, [N, H] each, the second and third in their planes. out: buffers
    for them; out[0] may be ``x``.
    """
    rows, columns = x.shape
    of_x, of_dense, of_routed, of_router = out or (None, None, None, None)
    out = (
        rows_in(1, rows, columns, x, of_x),
        rows_in(dense_planes, rows, columns, x, of_dense),
        rows_in(routed_planes, rows, columns, x, of_routed),
        rows_in(1, rows, columns, x, of_router),
    )
    require(x, attended, post_weight, dense_weight, routed_weight, router_weight, *out)
    block = triton.next_power_of_2(columns)
    weights = (post_weight, dense_weight, routed_weight, router_weight)
    _residual_norms[(rows,)](
        x, attended, *weights, *out, eps, columns, block, dense_planes, routed_planes, num_warps=row_warps(block)
    )
    return out


def combine(
    x: Tensor,
    dense: Tensor,
    routed: Tensor,
    dense_weight: Tensor,
    routed_weight: Tensor,
    post_weight: Tensor,
    scalar: Tensor,
    next_weight: Tensor,
    eps: float,
    next_planes: int = 1,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The end of a layer and the beginning of the next:
    x' = (x + norm(norm(dense) * dense_weight + norm(sum of routed) * routed_weight) * post_weight) * scalar.

    x, dense: [N, H]; routed: [N, k, H] or [N * k, H], the outputs of a token's experts, already weighted; scalar: [1];
    next_weight: [H] of the norm that comes next. Returns x' and norm(x') * next_weight, in ``next_planes``. out:
    buffers for them; out[0] may be ``x``.
    """
    rows, columns = x.shape
    of_x, of_next = out or (None, None)
    out = rows_in(1, rows, columns, x, of_x), rows_in(next_planes, rows, columns, x, of_next)
    require(x, dense, routed, dense_weight, routed_weight, post_weight, scalar, next_weight, *out)
    block = triton.next_power_of_2(columns)
    _combine[(rows,)](
        x, dense, routed, dense_weight, routed_weight, post_weight, scalar, next_weight, *out, eps,
        routed.numel() // x.numel(), columns, block, next_planes, num_warps=row_warps(block),
    )  # fmt: skip
    return out


@triton.jit
def _unit(x, eps, COLUMNS: tl.constexpr):
    """``x`` [BLOCK], zero beyond COLUMNS, with root mean square 1."""
    return x * tl.rsqrt(tl.sum(x * x, 0) / COLUMNS + eps)


@triton.jit
def _rms_norm(
    x_ptr, weight_ptr, out_ptr, eps,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, WEIGHTED: tl.constexpr, PLANES: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    inside = column < COLUMNS
    row = tl.program_id(0).to(tl.int64) * COLUMNS
    x = _unit(tl.load(x_ptr + row + column, inside, 0.0).to(tl.float32), eps, COLUMNS)
    if WEIGHTED:
        x *= tl.load(weight_ptr + column, inside, 0.0).to(tl.float32)
    tl.store(out_ptr + row + planar(column, COLUMNS, PLANES), x, inside)


@triton.jit
def _residual_norms(
    x_ptr, attended_ptr, post_ptr, dense_ptr, routed_ptr, router_ptr,
    out_ptr, dense_out_ptr, routed_out_ptr, router_out_ptr, eps,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, DENSE_PLANES: tl.constexpr, ROUTED_PLANES: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    inside = column < COLUMNS
    row = tl.program_id(0).to(tl.int64) * COLUMNS
    at = row + column
    attended = _unit(tl.load(attended_ptr + at, inside, 0.0).to(tl.float32), eps, COLUMNS)
    x = tl.load(x_ptr + at, inside, 0.0).to(tl.float32)
    x += attended * tl.load(post_ptr + column, inside, 0.0).to(tl.float32)
    kept = x.to(out_ptr.dtype.element_ty)  # the norms are of the residual as stored
    tl.store(out_ptr + at, kept, inside)
    x = _unit(kept.to(tl.float32), eps, COLUMNS)
    dense = x * tl.load(dense_ptr + column, inside, 0.0).to(tl.float32)
    tl.store(dense_out_ptr + row + planar(column, COLUMNS, DENSE_PLANES), dense, inside)
    routed = x * tl.load(routed_ptr + column, inside, 0.0).to(tl.float32)
    tl.store(routed_out_ptr + row + planar(column, COLUMNS, ROUTED_PLANES), routed, inside)
    tl.store(router_out_ptr + at, x * tl.load(router_ptr + column, inside, 0.0).to(tl.float32), inside)


@triton.jit
def _combine(
    x_ptr, dense_ptr, routed_ptr, dense_weight_ptr, routed_weight_ptr, post_ptr, scalar_ptr, next_ptr,
    out_ptr, normed_ptr, eps,
    TOP_K: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, NEXT_PLANES: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    inside = column < COLUMNS
    row = tl.program_id(0).to(tl.int64)
    at = row * COLUMNS + column
    routed = tl.zeros((BLOCK,), tl.float32)
    for expert in tl.static_range(TOP_K):
        routed += tl.load(routed_ptr + (row * TOP_K + expert) * COLUMNS + column, inside, 0.0).to(tl.float32)
    routed = _unit(routed, eps, COLUMNS) * tl.load(routed_weight_ptr + column, inside, 0.0).to(tl.float32)
    dense = _unit(tl.load(dense_ptr + at, inside, 0.0).to(tl.float32), eps, COLUMNS)
    both = dense * tl.load(dense_weight_ptr + column, inside, 0.0).to(tl.float32) + routed
    x = tl.load(x_ptr + at, inside, 0.0).to(tl.float32)
    x += _unit(both, eps, COLUMNS) * tl.load(post_ptr + column, inside, 0.0).to(tl.float32)
    x *= tl.load(scalar_ptr).to(tl.float32)
    kept = x.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + at, kept, inside)
    x = _unit(kept.to(tl.float32), eps, COLUMNS) * tl.load(next_ptr + column, inside, 0.0).to(tl.float32)
    tl.store(normed_ptr + row * COLUMNS + planar(column, COLUMNS, NEXT_PLANES), x, inside)
