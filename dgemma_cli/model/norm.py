"""RMSNorm: multiplies by the weight itself (not 1 + weight), computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.at_once import at_once


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Normalise the last dimension of ``x`` to root mean square 1, times ``weight`` ([last]) if there is one.

    The mean is taken in float32 at least; the result has the dtype of ``x``.
    """
    if x.dtype == torch.bfloat16 and not x.requires_grad:
        return _in_place(x, weight, eps)
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    wide = wide * scale
    if weight is not None:
        wide = wide * weight.float()
    return wide.to(x.dtype)


@at_once
def _in_place(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """The same in fewer passes over fewer copies."""
    wide = x.float()
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    wide.mul_(length.square_().div_(x.shape[-1]).add_(eps).rsqrt_())
    if weight is not None:
        wide.mul_(weight)
    return wide.to(x.dtype)


class RMSNorm(nn.Module):
    """``rms_norm`` with a weight of its own, [size]."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
