"""Rows of an INT8 matrix as numbers, in one pass: for products that sum over the rows, which cuBLAS then does.

The soft embedding is one: 738 million values a step. In torch each of them would be written and read in float32 several
times before it is bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.int8 import GROUP, Int8
from dgemma_cli.kernels.launch import require

_BLOCK = 512  # words of a program


def unpacked_rows(matrix: Int8, rows: slice) -> Tensor:
    """Some rows of the only matrix, bfloat16 [n, columns]: as ``unpack`` gives them."""
    first, last, _ = rows.indices(matrix.rows)
    require(matrix.codes, matrix.scale)
    out = torch.empty(last - first, matrix.columns, dtype=torch.bfloat16, device=matrix.device)
    words = matrix.columns // 2
    _unpack_rows[(last - first, triton.cdiv(words, _BLOCK))](
        matrix.codes.view(torch.int16), matrix.scale, out, first, words, GROUP // 2, _BLOCK, num_warps=2
    )
    return out


@triton.jit(do_not_specialize=["first"])
def _unpack_rows(
    codes_ptr, scale_ptr, out_ptr, first, WORDS: tl.constexpr, GROUP_WORDS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    stored = first + row
    group = tl.program_id(1) * (BLOCK // GROUP_WORDS) + tl.arange(0, BLOCK // GROUP_WORDS)
    word = group[:, None] * GROUP_WORDS + tl.arange(0, GROUP_WORDS)[None, :]
    words = tl.load(codes_ptr + stored * WORDS + word, mask=word < WORDS, other=0).to(tl.int32)
    GROUPS: tl.constexpr = WORDS // GROUP_WORDS
    scale = tl.load(scale_ptr + stored * GROUPS + group, mask=group < GROUPS, other=0.0).to(tl.float32)
    low = ((words & 255) - 128).to(tl.float32) * scale[:, None]
    high = (((words >> 8) & 255) - 128).to(tl.float32) * scale[:, None]
    values = tl.join(low, high).reshape(2 * BLOCK)  # the columns of a word are neighbours
    column = tl.program_id(1) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    tl.store(out_ptr + row * 2 * WORDS + column, values.to(tl.bfloat16), mask=column < 2 * WORDS)
