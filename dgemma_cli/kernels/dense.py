"""x @ W.T for weights that stay packed: attention, dense MLP, head, self-conditioning. For the MLP's first product with
gelu(gate) * up behind it, of sums that are not rounded in between.

With the 256 tokens of a canvas these are bound by the tensor cores, not by memory: a layer's matrix of 23 million
values is 12 billion multiplications. Packing them saves memory; tiles of 128 by 128 keep the loss of time small. With
a few tokens they are bound by memory like the experts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.gate import alternating, gated_sums
from dgemma_cli.kernels.multiply import multiply, row_factors
from dgemma_cli.kernels.planes import in_planes, planar, rows_in
from dgemma_cli.kernels.tiles import interpreting, tile, tokens_in_tile
from dgemma_cli.kernels.unpack import SUM_FACTOR
from dgemma_cli.kernels.words import Matrices, Words, words_of


def packed_linear(x: Tensor, matrix: Matrices, *, out: Tensor | None = None) -> Tensor:
    """x: [N, columns] or in ``planes_of(matrix)`` planes -> [N, rows], of x's dtype. matrix: one; if stacked, the rows
    of its parts follow each other.

    out: its rows may lie apart, as those of a part of a wider tensor do; the numbers of a row may not.
    """
    words, tokens = words_of(matrix), len(x)
    out = torch.empty(tokens, words.rows, dtype=x.dtype, device=x.device) if out is None else out
    if out.stride(1) != 1:
        raise ValueError("the numbers of an output row must lie side by side")
    _launch(x, words, out, out.stride(0), 0)
    return out


def packed_gated(x: Tensor, matrix: Matrices, planes: int = 1, *, out: Tensor | None = None) -> Tensor:
    """gelu(gate) * up, of x's dtype: [N, columns] or in ``planes_of(matrix)`` planes -> [N, I] in ``planes``.

    matrix: one, the I rows of gate above those of up.
    """
    words = words_of(matrix)
    out = rows_in(planes, len(x), words.rows // 2, x, out)
    _launch(x, words, out, words.rows // 2, planes)
    return out


def _launch(x: Tensor, words: Words, out: Tensor, out_stride: int, gated_planes: int) -> None:
    """gated_planes: those of the output where gate and up are to be multiplied; 0 where they are not."""
    if words.count != 1:
        raise ValueError(f"one matrix is wanted, not {words.count}")
    tokens, x = len(x), in_planes(x, words.planes, words.columns)
    at_once = tokens_in_tile("dense", tokens)
    size = tile("gated" if gated_planes else "dense", words, at_once, x.device)
    # Programs that read the same weights come one after the other: a cache smaller than a matrix has them still.
    _linear[(triton.cdiv(tokens, at_once), triton.cdiv(words.rows, size.rows))](
        x, out, tokens, out_stride,
        words.codes, words.codes if words.scale is None else words.scale,
        words.codes if words.factor is None else words.factor,
        MATRIX_ROWS=words.rows, GATED_PLANES=gated_planes, FORM=words.form, COLUMNS=words.columns,
        PLANES=words.planes, GROUP_WORDS=words.group_words,
        HAS_FACTOR=words.factor is not None, SPAN=words.span, DIVIDES=words.divides,
        SUM_FACTOR=SUM_FACTOR.get(words.form, 1.0), ROWS=size.rows, TOKENS=at_once, STEP=size.step, STAGES=size.stages,
        PTX=not interpreting(), num_warps=size.warps,
    )  # fmt: skip


@triton.jit(do_not_specialize=["tokens"])
def _linear(
    x_ptr, out_ptr, tokens, out_stride, codes_ptr, scale_ptr, factor_ptr,
    MATRIX_ROWS: tl.constexpr, GATED_PLANES: tl.constexpr, FORM: tl.constexpr, COLUMNS: tl.constexpr,
    PLANES: tl.constexpr, GROUP_WORDS: tl.constexpr,
    HAS_FACTOR: tl.constexpr, SPAN: tl.constexpr, DIVIDES: tl.constexpr, SUM_FACTOR: tl.constexpr, ROWS: tl.constexpr,
    TOKENS: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    # A row past the end is read as the last one, and not stored.
    OUT: tl.constexpr = MATRIX_ROWS if GATED_PLANES == 0 else MATRIX_ROWS // 2
    if GATED_PLANES == 0:
        column = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
        row = tl.minimum(column, OUT - 1)
    else:
        column = tl.program_id(1) * (ROWS // 2) + tl.arange(0, ROWS // 2)
        row = alternating(tl.program_id(1), OUT, ROWS)
    sums = multiply(
        x_ptr, token, token < tokens, codes_ptr, scale_ptr, row,
        FORM, COLUMNS, PLANES, GROUP_WORDS, ROWS, TOKENS, STEP, STAGES, PTX,
    )  # fmt: skip
    sums *= row_factors(factor_ptr, row, HAS_FACTOR, SPAN, DIVIDES, SUM_FACTOR)[:, None]
    if GATED_PLANES == 0:
        found = sums.trans(1, 0)
        place = column
    else:
        found = gated_sums(sums, ROWS, TOKENS)
        place = planar(column, OUT, GATED_PLANES)
    out = out_ptr + token[:, None].to(tl.int64) * out_stride + place[None, :]
    inside = (token < tokens)[:, None] & (column < OUT)[None, :]
    tl.store(out, found.to(out_ptr.dtype.element_ty), mask=inside)
