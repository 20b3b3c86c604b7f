"""From numbers to codes and scales: for every group of a row the scale whose rounding errors have the least squares.

Every function takes float32 values [rows, columns], finite, on any device, and returns the buffers of the format's
module in ``kernels`` and what the rounding did. Nothing larger than the values themselves is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_cli.kernels import int4, int8, nvfp4

# Values looked at together: on a CPU what its cache holds over a few passes, on a GPU enough to keep it busy.
_BLOCK = {"cpu": 2**18, "cuda": 2**24}
_E2M1_MOST, _E4M3_MOST = 6.0, 448.0
# The scale that NVFP4's search begins with brings the largest value to 6. These are steps from it through E4M3, whose
# steps are a twelfth on average: the largest value then comes to between 7 and 3.5.
_STEPS = range(-2, 7)
# Integers: shares of the scale that just keeps the largest value. 4 bits gain by cutting it off, 8 bits do not.
_SHARES = {4: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7), 8: (1.0, 0.97, 0.98, 0.99, 1.01, 1.02, 1.03)}


@dataclass(slots=True)
class Loss:
    """Sums of squares: of the rounding errors, and of the values."""

    error: float = 0.0
    values: float = 0.0

    def __iadd__(self, other: Loss) -> Loss:
        self.error += other.error
        self.values += other.values
        return self

    @property
    def relative(self) -> float:
        """Root mean square of the errors by that of the values."""
        return (self.error / self.values) ** 0.5 if self.values else 0.0


Quantised = tuple[dict[str, Tensor], Loss]


def to_nvfp4(values: Tensor, largest: float) -> Quantised:
    """largest: the largest magnitude of all matrices that shall have the same matrix scale.

    Buffers: codes, scale and ``matrix_scale``, a number that divides (float32, no dimensions).
    """
    # Twice the scale of the largest group must still be a finite E4M3 value, should the search prefer it.
    divisor = _E2M1_MOST * _E4M3_MOST / 2 / largest if largest else 1.0
    matrix_scale = torch.tensor(divisor, dtype=torch.float32, device=values.device)
    codes = torch.empty(values.shape[0], values.shape[1] // 2, dtype=torch.uint8, device=values.device)
    scale = torch.empty(values.shape[0], values.shape[1] // nvfp4.GROUP, dtype=torch.uint8, device=values.device)
    loss = Loss()
    for rows in _blocks(values):
        block = values[rows].unflatten(-1, (-1, nvfp4.GROUP)) * matrix_scale  # [n, groups, 16]
        size = block.abs()
        first = (size.amax(-1) / _E2M1_MOST).to(torch.float8_e4m3fn).view(torch.uint8).int()
        best, chosen = torch.full_like(size[..., 0], torch.inf), torch.ones_like(first)
        for step in _STEPS:
            byte = (first + step).clamp_(1, 126)
            unit = _e4m3(byte)
            error = (_round_e2m1(size / unit) * unit).sub_(size).square_().sum(-1)
            better = error < best
            best, chosen = torch.where(better, error, best), torch.where(better, byte, chosen)
        edges = torch.tensor((0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0), device=values.device)
        nibbles = torch.bucketize(size / _e4m3(chosen), edges, out_int32=True)
        nibbles += 8 * ((block < 0) & (nibbles > 0))
        even, odd = nibbles.flatten(-2).unflatten(-1, (-1, 2)).unbind(-1)
        codes[rows] = (even + 16 * odd).to(torch.uint8)
        scale[rows] = chosen.to(torch.uint8)
        loss += Loss(float(best.sum(dtype=torch.float64)), float(size.square_().sum(dtype=torch.float64)))
    loss.error, loss.values = loss.error / divisor**2, loss.values / divisor**2
    return {"codes": codes, "scale": scale.view(torch.float8_e4m3fn), "matrix_scale": matrix_scale}, loss


def _e4m3(byte: Tensor) -> Tensor:
    return byte.to(torch.uint8).view(torch.float8_e4m3fn).float()[..., None]


def _round_e2m1(size: Tensor) -> Tensor:
    """The nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6. size: not negative, overwritten."""
    size.clamp_(max=_E2M1_MOST)
    # Added to a number large enough, a value loses the bits below half of its own power of two (below 0.5 under 1).
    power = size.view(torch.int32).bitwise_and(0x7F800000).view(torch.float32).clamp_(min=1.0)
    large = power.mul_(0.75 * 2**23)
    return size.add_(large).sub_(large)


def to_int4(values: Tensor, scale_dtype: torch.dtype) -> Quantised:
    """Buffers: codes and scale."""
    return _to_integers(values, 4, int4.GROUP, scale_dtype)


def to_int8(values: Tensor, scale_dtype: torch.dtype) -> Quantised:
    """Buffers: codes and scale."""
    return _to_integers(values, 8, int8.GROUP, scale_dtype)


def _to_integers(values: Tensor, bits: int, group: int, scale_dtype: torch.dtype) -> Quantised:
    half, per_word = 2 ** (bits - 1), 32 // bits
    rows_in_all, columns = values.shape
    codes = torch.empty(rows_in_all, columns // per_word, dtype=torch.int32, device=values.device)
    scale = torch.empty(rows_in_all, columns // group, dtype=scale_dtype, device=values.device)
    loss = Loss()
    for rows in _blocks(values):
        block = values[rows].unflatten(-1, (-1, group))  # [n, groups, group]
        largest = block.abs().amax(-1, keepdim=True)
        best, chosen = torch.full_like(largest, torch.inf), torch.ones_like(largest)
        for share in (*_SHARES[bits], None):
            if share is not None:
                unit = largest * (share / (half - 1))
            else:  # with the codes found so far, the scale that suits them best
                whole = (block / chosen).round_().clamp_(-half, half - 1)
                unit = (block * whole).sum(-1, keepdim=True) / whole.square().sum(-1, keepdim=True).clamp_(min=1)
            unit = unit.to(scale_dtype).float()
            unit = torch.where((unit > 0) & unit.isfinite(), unit, 1.0)
            whole = (block / unit).round_().clamp_(-half, half - 1)
            error = whole.mul_(unit).sub_(block).square_().sum(-1, keepdim=True)
            better = error < best
            best, chosen = torch.where(better, error, best), torch.where(better, unit, chosen)
        whole = (block / chosen).round_().clamp_(-half, half - 1).add_(half).to(torch.uint8).flatten(-2)
        if bits == 4:
            even, odd = whole.unflatten(-1, (-1, 2)).unbind(-1)
            whole = even + 16 * odd
        codes[rows] = whole.contiguous().view(torch.int32)  # little-endian: first columns in the lowest bits
        scale[rows] = chosen[..., 0].to(scale_dtype)
        loss += Loss(float(best.sum(dtype=torch.float64)), float(block.square().sum(dtype=torch.float64)))
    return {"codes": codes, "scale": scale}, loss


def _blocks(values: Tensor) -> Iterator[slice]:
    rows, columns = values.shape
    step = max(1, _BLOCK[values.device.type] // columns)
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))
