"""INT4: values of -8 to 7 with a scale for every 32 of them, without a zero point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_cli.kernels.bits import constant, look_up, nibbles, quads, scaled
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.kernels.packed_expert import Room, Stored, expert_with, looking_up, room
from dgemma_cli.kernels.scratch import Scratch

GROUP = 32
_NUMBERS = tuple(float(code - 8) for code in range(16))
_SIGNS = constant(0x8080)
_SIXTEENTH = torch.tensor(1 / 16, device="cpu")


def decode(codes: Tensor, scale: Tensor, factor: Tensor, out: Tensor, words: Tensor, held: list[Tensor]) -> None:
    """See ``packed_expert.decode``. What ``Int4._values`` gives, rounded."""
    table, places, wide, scales = held
    scales[: scale.numel()].view_as(scale).copy_(scale)
    look_up(codes, scales[: scale.numel()], table, out, words, places, wide)


class Int4(Packed):
    """W[o, k] = (nibble - 8) * scale[o, k // 32].

    Buffers: codes, int32 [rows, columns / 8], first columns in the lowest bits; scale, [rows, columns / 32] of
    ``scale_dtype``.
    """

    run_expert = staticmethod(expert_with(decode))

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

    def stored(self, index: int) -> Stored:
        every = slice(0, self.rows)
        (codes,), (scale,) = self._stored("codes", [index], every, torch.uint16), self._stored("scale", [index], every)
        return Stored(codes, scale, scale)

    def room(self, most: int, scratch: Scratch) -> Room:
        scales = scratch.take("scale", (most // GROUP,), torch.float32)
        return room(scratch, most, torch.int64, [quads(_NUMBERS), *looking_up(scratch), scales])

    def _values(self, indices: Sequence[int], rows: slice, scratch: Scratch) -> Tensor:
        pairs = self._fetch("codes", indices, rows, scratch, torch.int16, torch.uint8)
        # A nibble at the upper end of a byte, its highest bit turned over, is 16 * (nibble - 8) as an integer.
        codes = nibbles("codes", tuple(pairs.shape), scratch)
        pairs.bitwise_xor_(_SIGNS)
        scale = self._fetch("scale", indices, rows, scratch, torch.float32).mul_(_SIXTEENTH)
        return scaled(codes, scratch.take("scale", (*scale.shape, 1), torch.float32), scratch)
