"""Activations laid out plane by plane, as products with packed weights read them: see ``words``.

Plain rows are [N, K]; in P planes they are [N, P, K / P], where column k is number k // P of plane k % P. So the shape
says which it is. Kernels whose results only such a product reads write them so at once; ``to_planes`` lays out the
others, and reads and writes N * K values for it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # columns of a program


def rows_in(planes: int, rows: int, columns: int, like: Tensor, out: Tensor | None = None) -> Tensor:
    """Memory for rows in so many planes: ``out``, or new memory of the dtype and on the device of ``like``.

    Raises ValueError if ``out`` has another shape, or the planes do not divide the columns.
    """
    if columns % planes:
        raise ValueError(f"{columns} columns are no whole number of {planes}-tuples")
    shape = (rows, columns) if planes == 1 else (rows, planes, columns // planes)
    if out is None:
        return like.new_empty(shape)
    if out.shape != shape:
        raise ValueError(f"{rows} rows of {columns} columns in {planes} planes do not go into {tuple(out.shape)}")
    return out


def in_planes(x: Tensor, planes: int, columns: int) -> Tensor:
    """``x`` for weights of so many columns that are read in ``planes``: as it is if it is laid out so already.

    Raises ValueError for rows of another length, or in another number of planes.
    """
    if x.shape[1:] == (columns,):
        return to_planes(x, planes)
    if x.shape[1:] != (planes, columns // planes):
        raise ValueError(f"{tuple(x.shape)} activations do not fit {columns} columns in {planes} planes")
    return x.contiguous()


def to_planes(x: Tensor, planes: int, out: Tensor | None = None) -> Tensor:
    """x: [N, K] -> the same values in ``planes``; ``x`` itself if it is one. They divide K. out: if it is not one."""
    if planes == 1:
        return x.contiguous()
    tokens, columns = x.shape
    out = rows_in(planes, tokens, columns, x, out)
    _to_planes[(tokens, triton.cdiv(columns, _BLOCK))](
        x.contiguous(), out, COLUMNS=columns, PLANES=planes, WORDS=_BLOCK // planes, num_warps=4
    )
    return out


@triton.jit
def planar(column, COLUMNS: tl.constexpr, PLANES: tl.constexpr):
    """Where in its row a column lies."""
    return column if PLANES == 1 else (column % PLANES) * (COLUMNS // PLANES) + column // PLANES


@triton.jit
def _to_planes(x_ptr, out_ptr, COLUMNS: tl.constexpr, PLANES: tl.constexpr, WORDS: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    word = (tl.program_id(1) * WORDS + tl.arange(0, WORDS))[:, None]
    plane = tl.arange(0, PLANES)[None, :]
    inside = word < COLUMNS // PLANES
    values = tl.load(x_ptr + row + word * PLANES + plane, mask=inside)
    tl.store(out_ptr + row + plane * (COLUMNS // PLANES) + word, values, mask=inside)
