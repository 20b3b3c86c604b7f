"""Sums of entropies that come out the same on every device: nats as whole numbers, whose sums no order can change."""

from __future__ import annotations

import torch
from torch import Tensor

UNIT = 2.0**-40  # nats; far below what float32 tells apart of an entropy that matters
MOST = 2.0**14  # nats that one value may stand for: hundreds of them still fit 64 bits, and no canvas has as many


def whole(nats: Tensor | float) -> Tensor:
    """Nats, float32, in whole units: int64 of the same shape, cut towards 0. Bounds on sums go through it as well."""
    values = torch.as_tensor(nats, dtype=torch.float32).double()
    return (values.clamp(max=MOST) / UNIT).to(torch.int64)
