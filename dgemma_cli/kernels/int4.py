"""INT4: values of -8 to 7 with a scale for every 32 of them, without a zero point."""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_cli.kernels.bits import constant, nibbles, scaled
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.kernels.scratch import Scratch

GROUP = 32
_SIGN = constant(0x80, torch.int8)
_SIXTEENTH = torch.tensor(1 / 16, device="cpu")


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

    def _values(self, index: int, rows: slice, scratch: Scratch) -> Tensor:
        # A nibble at the upper end of a byte, its highest bit turned over, is 16 * (nibble - 8) as an integer.
        codes = nibbles(self.codes[index, :, rows].view(torch.uint8), scratch)
        codes.bitwise_xor_(_SIGN)
        return scaled(codes, self.scale[index, :, rows, :, None].float().mul_(_SIXTEENTH), scratch)
