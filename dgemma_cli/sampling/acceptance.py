"""Which positions of a canvas are kept as text for the next step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_cli.sampling.nats import whole


@dataclass(frozen=True, slots=True)
class EntropyBound:
    """Accept the surest positions, in order of entropy, while the entropies *before* each sum to at most ``bound``.

    That sum bounds the joint mutual information of the accepted tokens, so they may be drawn independently
    (arXiv 2505.24857). The surest position has nothing before it: at least one is always accepted.
    """

    bound: float

    def accept(self, entropy: Tensor) -> Tensor:
        """entropy: nats, [C]. Returns a bool mask, [C]."""
        ascending, order = whole(entropy).sort(stable=True)  # of equally sure positions the first is the surer
        before = ascending.cumsum(0) - ascending
        return torch.zeros_like(order, dtype=torch.bool).scatter(0, order, before <= whole(self.bound))
