"""RMSNorm: multiplies by the weight itself (not 1 + weight), computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Normalise the last dimension of ``x`` to root mean square 1, times ``weight`` ([last]) if there is one.

    The mean is taken in float32 at least; the result has the dtype of ``x``.
    """
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    wide = wide * scale
    if weight is not None:
        wide = wide * weight.float()
    return wide.to(x.dtype)


class RMSNorm(nn.Module):
    """``rms_norm`` with a weight of its own, [size]."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
