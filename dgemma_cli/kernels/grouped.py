"""The experts' two products, with weights in any format: gate and up with gelu(gate) * up, and down with the routing
weight. ``grouping`` says which program works for which expert; each weight is read from memory once.

Bytes of a layer with all 128 experts in NVFP4: 286 MB of gate and up, 143 MB of down, and 3 MB of activations in and
out. An H100 reads that in 128 microseconds at best, the time of 5 instructions a value.

Gate and up rows alternate in a program's tile, so that a thread ends with both halves of its results.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.gate import alternating, gated_sums
from dgemma_cli.kernels.grouping import Groups, group_by_expert
from dgemma_cli.kernels.multiply import multiply, row_factors
from dgemma_cli.kernels.planes import in_planes, planar, rows_in
from dgemma_cli.kernels.tiles import Tile, interpreting, tile
from dgemma_cli.kernels.unpack import SUM_FACTOR
from dgemma_cli.kernels.words import Matrices, Words, planes_of, words_of


def routed_products(x: Tensor, weights: Tensor, experts: Tensor, gate_up: Matrices, down: Matrices) -> Tensor:
    """Each token's experts, each times its weight, not yet added up.

    x: [N, hidden] or in ``planes_of(gate_up)`` planes; weights, experts: [N, k]. Returns [N * k, hidden]; row
    n * k + j is that of ``experts[n, j]``.
    """
    count = down.shape[0] if isinstance(down, Tensor) else down.count
    groups = group_by_expert(experts, count)
    return grouped_down(grouped_gate_up(x, gate_up, groups, planes_of(down)), down, groups, weights)


def grouped_gate_up(x: Tensor, gate_up: Matrices, groups: Groups, planes: int, *, out: Tensor | None = None) -> Tensor:
    """gelu(gate) * up of every entry, rows in the order of ``groups``: [N, hidden] -> [N * k, I] in ``planes``, which
    are those of what it is multiplied by next.

    x: plain, or in ``planes_of(gate_up)`` planes. gate_up: the I rows of gate above those of up, for each expert.
    """
    words = words_of(gate_up)
    entries, inner = groups.order.numel(), words.rows // 2
    out = rows_in(planes, entries, inner, x, out)
    x = in_planes(x, words.planes, words.columns)
    size, most = tile("gate_up", words, groups.tile, x.device), groups.tiles.shape[1]
    _gate_up[(triton.cdiv(2 * inner, size.rows), most)](
        x, out, groups.order, groups.tiles, most, TOP_K=groups.top_k, INNER=inner, OUT_PLANES=planes,
        **_arguments(words, size, groups.tile),
    )  # fmt: skip
    return out


def grouped_down(
    inner: Tensor, down: Matrices, groups: Groups, weights: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """Every entry's product times its routing weight, rows in the order of tokens: [N * k, I] -> [N * k, hidden].

    inner: as ``grouped_gate_up`` gives it, best in ``planes_of(down)`` planes; weights: [N, k], of any float dtype.
    """
    words = words_of(down)
    entries, inner = groups.order.numel(), in_planes(inner, words.planes, words.columns)
    out = torch.empty(entries, words.rows, dtype=inner.dtype, device=inner.device) if out is None else out
    size, most = tile("down", words, groups.tile, out.device), groups.tiles.shape[1]
    _down[(triton.cdiv(words.rows, size.rows), most)](
        inner, out, groups.order, groups.tiles, weights.contiguous(), most, OUT=words.rows,
        **_arguments(words, size, groups.tile),
    )  # fmt: skip
    return out


def _arguments(words: Words, size: Tile, tokens: int) -> dict[str, Any]:
    """What both kernels are told of the weights and of the tile."""
    factors = 0 if words.factor is None else words.factor.numel() // words.count
    return {
        "codes_ptr": words.codes,
        "scale_ptr": words.codes if words.scale is None else words.scale,
        "factor_ptr": words.codes if words.factor is None else words.factor,
        "FORM": words.form,
        "COLUMNS": words.columns,
        "PLANES": words.planes,
        "GROUP_WORDS": words.group_words,
        "FACTORS": factors,
        "SPAN": words.span,
        "DIVIDES": words.divides,
        "SUM_FACTOR": SUM_FACTOR.get(words.form, 1.0),
        "ROWS": size.rows,
        "TOKENS": tokens,
        "STEP": size.step,
        "STAGES": size.stages,
        "PTX": not interpreting(),
        "num_warps": size.warps,
    }


@triton.jit(do_not_specialize=["most"])
def _gate_up(
    x_ptr, out_ptr, order_ptr, tiles_ptr, most, codes_ptr, scale_ptr, factor_ptr,
    TOP_K: tl.constexpr, INNER: tl.constexpr, OUT_PLANES: tl.constexpr, FORM: tl.constexpr,
    COLUMNS: tl.constexpr, PLANES: tl.constexpr, GROUP_WORDS: tl.constexpr, FACTORS: tl.constexpr, SPAN: tl.constexpr,
    DIVIDES: tl.constexpr, SUM_FACTOR: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, STEP: tl.constexpr,
    STAGES: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(1)
    expert = tl.load(tiles_ptr + tile).to(tl.int64)
    if expert < 0:
        return
    place = tl.load(tiles_ptr + most + tile) + tl.arange(0, TOKENS)
    taken = place < tl.load(tiles_ptr + 2 * most + tile)
    token = tl.load(order_ptr + place, mask=taken, other=0) // TOP_K
    row = alternating(tl.program_id(0), INNER, ROWS)
    matrix = expert * (2 * INNER)
    sums = multiply(
        x_ptr, token, taken, codes_ptr + matrix * (COLUMNS // PLANES),
        scale_ptr + (0 if GROUP_WORDS == 0 else matrix * (COLUMNS // PLANES // GROUP_WORDS)), row,
        FORM, COLUMNS, PLANES, GROUP_WORDS, ROWS, TOKENS, STEP, STAGES, PTX,
    )  # fmt: skip
    sums *= row_factors(factor_ptr + expert * FACTORS, row, FACTORS > 0, SPAN, DIVIDES, SUM_FACTOR)[:, None]
    inner = gated_sums(sums, ROWS, TOKENS)
    column = tl.program_id(0) * (ROWS // 2) + tl.arange(0, ROWS // 2)
    out = out_ptr + place[:, None] * INNER + planar(column, INNER, OUT_PLANES)[None, :]
    tl.store(out, inner.to(out_ptr.dtype.element_ty), mask=taken[:, None] & (column < INNER)[None, :])


@triton.jit(do_not_specialize=["most"])
def _down(
    x_ptr, out_ptr, order_ptr, tiles_ptr, weight_ptr, most, codes_ptr, scale_ptr, factor_ptr,
    OUT: tl.constexpr, FORM: tl.constexpr, COLUMNS: tl.constexpr, PLANES: tl.constexpr,
    GROUP_WORDS: tl.constexpr, FACTORS: tl.constexpr, SPAN: tl.constexpr, DIVIDES: tl.constexpr,
    SUM_FACTOR: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
    PTX: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(1)
    expert = tl.load(tiles_ptr + tile).to(tl.int64)
    if expert < 0:
        return
    place = tl.load(tiles_ptr + most + tile) + tl.arange(0, TOKENS)
    taken = place < tl.load(tiles_ptr + 2 * most + tile)
    column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.minimum(column, OUT - 1)  # one past the end is read as the last one, and not stored
    matrix = expert * OUT
    sums = multiply(
        x_ptr, place, taken, codes_ptr + matrix * (COLUMNS // PLANES),
        scale_ptr + (0 if GROUP_WORDS == 0 else matrix * (COLUMNS // PLANES // GROUP_WORDS)), row,
        FORM, COLUMNS, PLANES, GROUP_WORDS, ROWS, TOKENS, STEP, STAGES, PTX,
    )  # fmt: skip
    sums *= row_factors(factor_ptr + expert * FACTORS, row, FACTORS > 0, SPAN, DIVIDES, SUM_FACTOR)[:, None]
    entry = tl.load(order_ptr + place, mask=taken, other=0)
    sums *= tl.load(weight_ptr + entry, mask=taken, other=0.0).to(tl.float32)[None, :]
    out = out_ptr + entry[:, None].to(tl.int64) * OUT + column[None, :]
    tl.store(out, sums.trans(1, 0).to(out_ptr.dtype.element_ty), mask=taken[:, None] & (column < OUT)[None, :])
