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

    spacing: of the refused positions also accept each that is surer than all others less than ``spacing`` positions
    away; 0 for none. Where a text is open, the bound takes one choice a step. What is undecided far apart mostly has
    little to do with each other, and where it has, the next step sees it: its draft will no longer be sure there.
    """

    bound: float
    spacing: int = 0

    def accept(self, entropy: Tensor, probabilities: Tensor | None = None) -> Tensor:
        """entropy: nats, [C]; the probabilities are not looked at. Returns a bool mask, [C]."""
        return within(entropy, whole(self.bound), torch.tensor(self.spacing))


def within(entropy: Tensor, bound: Tensor, spacing: Tensor) -> Tensor:
    """``EntropyBound.accept`` for a bound in whole units and a spacing, int64 [] each, on the host or known to the
    device alone.
    """
    ascending, order = whole(entropy).sort(stable=True)  # of equally sure positions the first is the surer
    before = ascending.cumsum(0) - ascending
    place = torch.arange(len(order), device=order.device)
    rank = torch.empty_like(order).scatter(0, order, place)
    accepted = (before <= bound).gather(0, rank)
    near = (place[:, None] - place).abs() < spacing
    surer = rank < rank[:, None]
    return accepted | ((spacing > 0) & ~(near & surer & ~accepted).any(dim=1))
