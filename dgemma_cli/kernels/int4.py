"""INT4: values of -8 to 7 with a scale for every 32 of them, without a zero point."""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_cli.kernels.packed import Packed, Table

GROUP = 32
_TABLE = Table([nibble - 8.0 for nibble in range(16)], bits=4)


class Int4(Packed):
    """W[o, k] = (nibble - 8) * scale[o, k // 32].

    Buffers: codes, int32 [rows, columns / 8], first columns in the lowest bits; scale, [rows, columns / 32] of
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
                "codes": ((rows, columns // 8), torch.int32),
                "scale": ((rows, columns // GROUP), scale_dtype),
            },
        )

    def _values(self, index: int, part: slice, rows: slice) -> Tensor:
        values = _TABLE.look_up(self.codes[index, part, rows])
        scale = self.scale[index, part, rows].float()
        values.view(*scale.shape, GROUP).mul_(scale[..., None])
        return values
