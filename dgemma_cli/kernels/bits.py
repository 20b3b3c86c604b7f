"""Bits moved to where a machine number has them, for a whole tensor at a time: the codes of packed formats as numbers.

Results lie in memory that was given, or in a scratch, where the next call overwrites them.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from dgemma_cli.kernels.scratch import Scratch

E4M3_UNIT = 2.0**-8  # what ``e4m3`` gives for 1
E2M1_UNIT = 2.0**-14  # what ``e2m1`` gives for 1


def constant(bits: int, dtype: torch.dtype = torch.int16) -> Tensor:
    """For operations on integers. bits: as they are written, the highest of them the sign.

    Made once: to make a tensor of a Python number, as torch does in each call, takes longer than to call an operation.
    """
    size = 8 * dtype.itemsize
    return torch.tensor(bits - (bits >> size - 1 << size), dtype=dtype, device="cpu")


def nibbles(name: str, shape: tuple[int, ...], scratch: Scratch) -> Tensor:
    """Each nibble in a byte of its own, at its upper end. name, shape: of an int16 tensor in the scratch, [..., m], of
    numbers from 0 to 255. Returns int8 [..., 2 m], a lower nibble first, in the same memory.

    On a little-endian machine the first of two bytes is the lower one.
    """
    pairs = scratch.take(name, shape, torch.int16)
    upper = torch.bitwise_and(pairs, _UPPER_NIBBLE, out=scratch.take("upper nibbles", shape, torch.int16))
    # low + 16 high + 15 * 16 high = low + 256 high
    pairs.add_(upper, alpha=15).bitwise_left_shift_(_FOUR)
    return scratch.take(name, (*shape[:-1], 2 * shape[-1]), torch.int8)


def e4m3(name: str, shape: tuple[int, ...], scratch: Scratch) -> Tensor:
    """What E4M3 stands for, times E4M3_UNIT, exact. name, shape: of an int16 tensor in the scratch, of its bits as
    numbers of int8. Returns float16 in the same memory. The two codes for no number become 480.

    A float16 has one bit of exponent more than E4M3, and its bits in the same order.
    """
    scratch.take(name, shape, torch.int16).bitwise_left_shift_(_SEVEN).bitwise_and_(_E4M3_IN_FLOAT16)
    return scratch.take(name, shape, torch.float16)


def e4m3_in_bfloat16(name: str, shape: tuple[int, ...], scratch: Scratch) -> Tensor:
    """The same as bfloat16, exact, and in units of 1. Its bits, where bfloat16 has them, are 2^-120 times it."""
    scratch.take(name, shape, torch.int16).bitwise_left_shift_(_FOUR).bitwise_and_(_E4M3_IN_BFLOAT16)
    return scratch.take(name, shape, torch.bfloat16).mul_(_E4M3_PER_BFLOAT16)


def e2m1(name: str, shape: tuple[int, ...], scratch: Scratch) -> Tensor:
    """What E2M1 stands for, times E2M1_UNIT, exact. name, shape: as for ``nibbles``. Returns float16 [..., 2 m]."""
    alone = nibbles(name, shape, scratch)
    shape = tuple(alone.shape)
    bits = scratch.take("e2m1", shape, torch.int16).copy_(alone)
    bits.bitwise_left_shift_(_FIVE).bitwise_and_(_E2M1_IN_FLOAT16)
    return scratch.take("e2m1", shape, torch.float16)


def scaled(numbers: Tensor, scale: Tensor, scratch: Scratch) -> Tensor:
    """numbers * scale in float32, under "values": [..., m * g] and float32 [..., m, 1], a scale for every g."""
    *outer, columns = shape = tuple(numbers.shape)
    groups = scale.shape[-2]
    values = scratch.take("values", shape, torch.float32).copy_(numbers)
    scratch.take("values", (*outer, groups, columns // groups), torch.float32).mul_(scale)
    return values


@cache
def quads(numbers: tuple[float, ...]) -> Tensor:
    """What 16 bits stand for, four bfloat16 in an int64: ``numbers`` has what each nibble stands for. int64 [65536]."""
    words = torch.arange(2**16, device="cpu")
    nibbles = torch.stack([words >> place & 15 for place in (0, 4, 8, 12)], dim=-1)
    table = torch.tensor(numbers, dtype=torch.bfloat16, device="cpu")[nibbles]
    return table.view(torch.int64).flatten()


def look_up(
    codes: Tensor, scale: Tensor, table: Tensor, out: Tensor, words: Tensor, places: Tensor, wide: Tensor
) -> None:
    """Products of nibbles and scales, rounded once. For ``at_once``.

    codes: uint16 [stack, n, columns / 4]; scale: float32, flat, one for every so many columns; table: of ``quads``.
    out: bfloat16, flat, [stack * n * columns]; words: the same memory as int64. places: int64, wide: float32 of four
    times as many, worked in: some rows at a time, so that what passes from one operation to the next stays in a CPU's
    caches.
    """
    stack, n, quarter = codes.shape
    rows = max(1, places.numel() // quarter)
    groups = scale.numel() // (stack * n)
    for at in range(stack):
        for first in range(0, n, rows):
            own = codes[at, first : first + rows]
            begin, count = (at * n + first) * quarter, own.numel()
            place = places[:count]
            place.view_as(own).copy_(own)
            torch.index_select(table, 0, place, out=words[begin : begin + count])
            scales = scale[(at * n + first) * groups :][: count // quarter * groups].view(-1, 1)
            values = wide[: 4 * count].view(scales.shape[0], -1)
            found = out[4 * begin : 4 * (begin + count)].view_as(values)
            found.copy_(values.copy_(found).mul_(scales))


_FOUR, _FIVE, _SEVEN = (constant(places) for places in (4, 5, 7))
_UPPER_NIBBLE = constant(0x00F0)
_E4M3_IN_BFLOAT16 = constant(0b1_00001111_1110000)
_E4M3_PER_BFLOAT16 = torch.tensor(2.0**120, dtype=torch.bfloat16, device="cpu")
_E4M3_IN_FLOAT16 = constant(0b1_01111_1110000000)  # a sign, four bits of exponent, three of mantissa
_E2M1_IN_FLOAT16 = constant(0b1_00011_1000000000)  # a sign, two bits of exponent, one of mantissa
