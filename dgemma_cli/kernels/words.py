"""What the weight-bound kernels read: every format as rows of 16-bit words.

A word holds P neighbouring columns: 4 of 4 bits, 2 of 8 bits, or 1 of bfloat16. So column k is in word k // P, and the
columns k = j, j + P, j + 2 P, ... make up *plane* j. A kernel unpacks a tile of words into P tiles of the same shape,
one for each plane, with no value moved between places, and multiplies each by the same plane of the activations. These
lie in memory plane by plane, so that a plane is one stretch: see ``planes``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_cli.kernels.fp8 import FP8
from dgemma_cli.kernels.int4 import GROUP as INT4_GROUP
from dgemma_cli.kernels.int4 import Int4
from dgemma_cli.kernels.int8 import GROUP as INT8_GROUP
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.nvfp4 import GROUP as NVFP4_GROUP
from dgemma_cli.kernels.nvfp4 import NVFP4
from dgemma_cli.kernels.packed import Packed

Matrices = Packed | Tensor


@dataclass(frozen=True, slots=True)
class Words:
    """``count`` matrices of [rows, columns], without a copy of anything.

    form: the name that kernels know a format by. codes: [count, rows, columns / planes], int16 or bfloat16.
    scale: one for every ``group`` columns of a row, [count, rows, columns / group], in whatever dtype it is stored.
    factor: float32, flat: of ``span`` rows each, what their sums are multiplied by, or divided by if ``divides``.
    """

    form: str
    planes: int
    count: int
    rows: int
    columns: int
    codes: Tensor
    scale: Tensor | None = None
    group: int = 0
    factor: Tensor | None = None
    span: int = 1
    divides: bool = False

    @property
    def group_words(self) -> int:
        """How many words share a scale; 0 without scales."""
        return self.group // self.planes


def planes_of(matrix: Matrices) -> int:
    """How many planes the activations must have that ``matrix`` is multiplied by."""
    if isinstance(matrix, Tensor):
        return 1
    return 4 if isinstance(matrix, NVFP4 | Int4) else 2


def words_of(matrix: Matrices) -> Words:
    """The words of packed matrices, or of plain ones: bfloat16 [rows, columns] or [count, rows, columns].

    Stacked matrices count as one, their rows one below the other. Raises TypeError for a dtype that is not supported.
    """
    planes = planes_of(matrix)
    if isinstance(matrix, Tensor):
        if matrix.dtype != torch.bfloat16:
            raise TypeError(f"plain weights must be bfloat16 for the GPU's kernels, not {matrix.dtype}")
        codes = matrix if matrix.dim() == 3 else matrix[None]
        count, rows, columns = codes.shape
        return Words("bf16", planes, count, rows, columns, codes)
    count, rows, columns = matrix.count, matrix.stack * matrix.rows, matrix.columns
    shape = (count, rows, columns // planes)
    match matrix:
        case NVFP4():
            codes, scale = matrix.codes.view(torch.int16), matrix.scale.view(torch.uint8)
            factor = matrix.matrix_scale.view(-1)
            return Words(
                "nvfp4", planes, count, rows, columns, codes.view(shape), scale.view(count, rows, -1), NVFP4_GROUP,
                factor, matrix.rows, matrix.divides,
            )  # fmt: skip
        case Int4() | Int8():
            form, group = ("int4", INT4_GROUP) if isinstance(matrix, Int4) else ("int8", INT8_GROUP)
            codes, scale = matrix.codes.view(torch.int16).view(shape), matrix.scale.view(count, rows, -1)
            return Words(form, planes, count, rows, columns, codes, scale, group)
        case FP8():
            codes = matrix.codes.view(torch.uint8).view(torch.int16).view(shape)
            return Words("fp8", planes, count, rows, columns, codes, factor=matrix.scale.view(-1))
    raise TypeError(f"no GPU kernel for {type(matrix).__name__}")
