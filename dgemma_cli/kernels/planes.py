"""Activations laid out plane by plane: column k goes to place (k mod P) * K / P + k // P. See ``words``.

Reads and writes N * K values once. Where a kernel before can write its result so, this one is not needed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # columns of a program


def to_planes(x: Tensor, planes: int) -> Tensor:
    """x: [N, K] -> the same values plane by plane, [N, K]; ``x`` itself if there is one plane. planes divide K."""
    if planes == 1:
        return x.contiguous()
    tokens, columns = x.shape
    if columns % planes:
        raise ValueError(f"{columns} columns are no whole number of {planes}-tuples")
    out = torch.empty(tokens, columns, dtype=x.dtype, device=x.device)
    _to_planes[(tokens, triton.cdiv(columns, _BLOCK))](
        x.contiguous(), out, COLUMNS=columns, PLANES=planes, WORDS=_BLOCK // planes, num_warps=4
    )
    return out


@triton.jit
def _to_planes(x_ptr, out_ptr, COLUMNS: tl.constexpr, PLANES: tl.constexpr, WORDS: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    word = (tl.program_id(1) * WORDS + tl.arange(0, WORDS))[:, None]
    plane = tl.arange(0, PLANES)[None, :]
    inside = word < COLUMNS // PLANES
    values = tl.load(x_ptr + row + word * PLANES + plane, mask=inside)
    tl.store(out_ptr + row + plane * (COLUMNS // PLANES) + word, values, mask=inside)
