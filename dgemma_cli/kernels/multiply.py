"""The loop that the weight-bound kernels share: a tile of weight rows times a tile of tokens.

The weights are the left operand. So they reach the tensor cores from the registers they are unpacked in, and only the
activations go through shared memory as an operand; packed weights and scales pass through it once, as they are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dgemma_cli.kernels.unpack import scale_word, unpack


@triton.jit
def multiply(
    x_ptr, x_row, x_mask, codes_ptr, scale_ptr, row,
    FORM: tl.constexpr, COLUMNS: tl.constexpr, PLANES: tl.constexpr, GROUP_WORDS: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """float32 [ROWS, TOKENS] of sums over all columns, still to be multiplied by the rows' factors.

    x_row: which rows of the planar activations, [TOKENS]; where x_mask is false they count as 0. codes_ptr, scale_ptr:
    of one matrix; row: which of its rows, [ROWS].
    """
    WORDS: tl.constexpr = COLUMNS // PLANES
    TAIL: tl.constexpr = WORDS % STEP != 0
    step = tl.arange(0, STEP)
    sums = tl.zeros((ROWS, TOKENS), tl.float32)
    for start in tl.range(0, WORDS, STEP, num_stages=STAGES):
        word = start + step
        codes = codes_ptr + row[:, None] * WORDS + word[None, :]
        x = x_ptr + x_row[None, :] * COLUMNS + word[:, None]
        if TAIL:
            inside = word < WORDS
            words = tl.load(codes, mask=inside[None, :], other=0)
            wanted = x_mask[None, :] & inside[:, None]
        else:
            words = tl.load(codes)
            wanted = x_mask[None, :]
        if FORM == "bf16":
            sums = tl.dot(words, tl.load(x, mask=wanted, other=0.0), sums)
        else:
            if GROUP_WORDS == 0:
                scales = words
            else:
                GROUPS: tl.constexpr = STEP // GROUP_WORDS
                group = start // GROUP_WORDS + tl.arange(0, GROUPS)
                scale = scale_ptr + row[:, None] * (WORDS // GROUP_WORDS) + group[None, :]
                if TAIL:
                    scale = tl.load(scale, mask=(group < WORDS // GROUP_WORDS)[None, :], other=0)
                else:
                    scale = tl.load(scale)
                scale = scale_word(scale, FORM, PTX)
                scales = tl.broadcast_to(scale[:, :, None], (ROWS, GROUPS, GROUP_WORDS)).reshape(ROWS, STEP)
            planes = unpack(words, scales, FORM, PTX)
            for plane in tl.static_range(PLANES):
                sums = tl.dot(planes[plane], tl.load(x + plane * WORDS, mask=wanted, other=0.0), sums)
    return sums


@triton.jit
def row_factors(
    factor_ptr, row, HAS_FACTOR: tl.constexpr, SPAN: tl.constexpr, DIVIDES: tl.constexpr, SUM_FACTOR: tl.constexpr,
):  # fmt: skip
    """What the sums of each row are multiplied by, float32 of the shape of ``row``."""
    factor = tl.full(row.shape, SUM_FACTOR, tl.float32)
    if HAS_FACTOR:
        stored = tl.load(factor_ptr + row // SPAN)
        factor = factor / stored if DIVIDES else factor * stored
    return factor
