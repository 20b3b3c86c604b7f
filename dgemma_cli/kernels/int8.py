"""INT8: values of -128 to 127 with a scale for every 64 of them, without a zero point.

The format of what is not an expert where 4 bits would cost too much: on normal, heavy-tailed and outlier-ridden weights
its error is 0.6 to 1.4 %; that of FP8 with a scale a row is 2.0 to 2.6 %, that of INT8 with one 0.6 to 7.8 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_cli.kernels.bits import constant, scaled
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.kernels.scratch import Scratch

GROUP = 64
# A byte whose highest bit is turned over is byte - 128 as an integer. On a little-endian machine the lowest bits of an
# int32 are its first byte's.
_SIGNS = constant(0x80808080, torch.int32)


class Int8(Packed):
    """W[o, k] = (byte - 128) * scale[o, k // 64].

    Buffers: codes, int32 [rows, columns / 4], first columns in the lowest bits; scale, [rows, columns / 64] of
    ``scale_dtype``.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, count: int, stack: int, rows: int, columns: int, scale_dtype: torch.dtype) -> None:
        super().__init__(
            count,
            stack,
            rows,
            columns,
            {
                "codes": ((rows, columns // 4), torch.int32),
                "scale": ((rows, columns // GROUP), scale_dtype),
            },
        )

    def rows_of(self, which: Tensor, dtype: torch.dtype) -> Tensor:
        """Some rows of the only matrix, [n, columns]: as ``unpack`` gives them, without the others."""
        codes, scale = self.codes[0, 0, which].bitwise_xor_(_SIGNS), self.scale[0, 0, which].float()
        return scaled(codes.view(torch.int8), scale[..., None], Scratch(self.device)).to(dtype)

    def _values(self, indices: Sequence[int], rows: slice, scratch: Scratch) -> Tensor:
        stored = self._stored("codes", indices, rows)
        *outer, columns = shape = len(stored), *stored[0].shape
        for place, part in zip(scratch.split("codes", shape, torch.int32), stored, strict=True):
            torch.bitwise_xor(part, _SIGNS, out=place)
        scale = self._fetch("scale", indices, rows, scratch, torch.float32)
        codes = scratch.take("codes", (*outer, 4 * columns), torch.int8)
        return scaled(codes, scratch.take("scale", (*scale.shape, 1), torch.float32), scratch)
