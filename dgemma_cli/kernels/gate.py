"""gelu(gate) * up of the dense MLP in one launch. The reference is ``reference.gated``."""

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
    # The tanh form of gelu, as tanh(u) = 2 sigmoid(2 u) - 1 has it.
    gelu = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    out = out_ptr + row * INNER + planar(column, INNER, PLANES)
    tl.store(out, (gelu * up).to(out_ptr.dtype.element_ty), mask=inside)
