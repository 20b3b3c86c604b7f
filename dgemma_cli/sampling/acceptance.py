"""Which positions of a canvas are kept as text for the next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dgemma_cli.sampling.nats import whole


class Acceptance(Protocol):
    """Decides after each step which positions stay as they are drawn; the others are noise again."""

    def accept(self, entropy: Tensor, probabilities: Tensor) -> Tensor:
        """entropy: nats, [C]; probabilities: [C, V]. Returns a bool mask, [C], set somewhere."""
        ...


@dataclass(frozen=True, slots=True)
class EntropyBound:
    """Accept the surest positions, in order of entropy, while the entropies *before* each sum to at most ``bound``.

    That sum bounds the joint mutual information of the accepted tokens, so they may be drawn independently
    (arXiv 2505.24857). The surest position has nothing before it: at least one is always accepted.
    """

    bound: float

    def accept(self, entropy: Tensor, probabilities: Tensor | None = None) -> Tensor:
        """entropy: nats, [C]; the probabilities are not looked at. Returns a bool mask, [C]."""
        ascending, order = whole(entropy).sort(stable=True)  # of equally sure positions the first is the surer
        before = ascending.cumsum(0) - ascending
        return torch.zeros_like(order, dtype=torch.bool).scatter(0, order, before <= whole(self.bound))
