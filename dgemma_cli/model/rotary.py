"""Rotary position embedding: halves are rotated, in float32; on full layers only the first angles turn."""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_cli.kernels.at_once import at_once
from dgemma_cli.model.config import RotaryConfig


def inverse_frequencies(head_dim: int, rotary: RotaryConfig, device: torch.device) -> Tensor:
    """Radians a position for each of the head_dim / 2 angles, float32 [head_dim / 2].

    The exponents are divided by the full head_dim, and the angles beyond the partial share are zero: the
    "proportional" kind. With a share of 1 it is the ordinary kind.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    frequencies = 1.0 / rotary.theta**exponents
    turning = int(rotary.partial * head_dim // 2)
    frequencies[turning:] = 0.0
    return frequencies


def angles(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine for positions [B, T]: two float32 tensors [B, T, 1, head_dim / 2], ready to meet heads."""
    turn = positions[:, :, None, None].float() * frequencies
    return turn.cos(), turn.sin()


@at_once
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x`` [B, T, heads, head_dim] by the angles; the result has the dtype of ``x``."""
    left, right = x.float().chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)
