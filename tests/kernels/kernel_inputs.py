"""What tests of kernels are fed: random tensors on the device, and outputs that show where nothing was written."""

from __future__ import annotations

import torch
from torch import Tensor


class Inputs:
    """Tensors of one dtype on one device, the same in every run."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator().manual_seed(0)

    def random(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=self.generator) * scale).to(self.device, self.dtype)

    def poisoned(self, *shape: int) -> Tensor:
        return torch.full(shape, torch.nan, device=self.device, dtype=self.dtype)
