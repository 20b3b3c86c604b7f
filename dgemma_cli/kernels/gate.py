"""gelu(gate) * up: in a launch of its own behind a product of cuBLAS's, or of the sums that a kernel of ours has at
hand. The reference is ``reference.gated``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.planes import planar, rows_in

_BLOCK = 1024


def gated(gate_up: Tensor, planes: int = 1) -> Tensor:
    """gate and up side by side, [N, 2 I], contiguous -> [N, I], in ``planes``."""
    rows, both = gate_up.shape
    out = rows_in(planes, rows, both // 2, gate_up)
    _gated[(rows, triton.cdiv(both // 2, _BLOCK))](gate_up, out, both // 2, _BLOCK, planes, num_warps=4)
    return out


@triton.jit
def _gated(both_ptr, out_ptr, INNER: tl.constexpr, BLOCK: tl.constexpr, PLANES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < INNER
    gate = tl.load(both_ptr + row * 2 * INNER + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both_ptr + row * 2 * INNER + INNER + column, mask=inside, other=0.0).to(tl.float32)
    out = out_ptr + row * INNER + planar(column, INNER, PLANES)
    tl.store(out, _gelu_times(gate, up).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def alternating(block, INNER: tl.constexpr, ROWS: tl.constexpr):
    """Rows of gate and up by turns, [ROWS], from the INNER rows of gate above those of up: tile number ``block``. Past
    the end they are the last ones.
    """
    pair = block * (ROWS // 2) + tl.arange(0, ROWS) // 2
    return tl.minimum(pair, INNER - 1) + (tl.arange(0, ROWS) % 2) * INNER


@triton.jit
def gated_sums(sums, ROWS: tl.constexpr, TOKENS: tl.constexpr):
    """The sums of ``alternating`` rows, [ROWS, TOKENS] -> [TOKENS, ROWS / 2]."""
    gate, up = sums.trans(1, 0).reshape(TOKENS, ROWS // 2, 2).split()
    return _gelu_times(gate, up)


@triton.jit
def _gelu_times(gate, up):
    # The tanh form of gelu, as tanh(u) = 2 sigmoid(2 u) - 1 has it.
    return gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)) * up
