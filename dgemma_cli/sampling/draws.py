"""The sampler's randomness, apart from everything else: so that it can be seeded, and replaced in tests."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    """What a denoising step draws, in this order: ``pick``, then ``noise``. A block begins with a ``noise``."""

    def noise(self) -> Tensor:
        """A canvas of uniformly random ids, int64 [C]."""
        ...

    def pick(self, probabilities: Tensor) -> Tensor:
        """One id for each position, drawn from its distribution: float32 [C, V] -> int64 [C]."""
        ...


class SeededDraws:
    """Draws from a generator on the CPU: one uniform number for a position, so a seed means the same on every device
    and a step costs 256 random numbers, not 256 times the vocabulary.
    """

    def __init__(self, seed: int, canvas_length: int, vocab_size: int, device: torch.device) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._canvas_length = canvas_length
        self._vocab_size = vocab_size
        self._device = device

    def noise(self) -> Tensor:
        ids = torch.randint(self._vocab_size, (self._canvas_length,), generator=self._generator)
        return ids.to(self._device)

    def pick(self, probabilities: Tensor) -> Tensor:
        uniform = torch.rand(probabilities.shape[0], 1, generator=self._generator).to(self._device)
        return pick_by_inverse_cdf(probabilities, uniform)


def pick_by_inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The first id at which the cumulated probability exceeds the uniform number.

    probabilities: [C, V], not negative, rows need not sum to exactly 1; uniform: in [0, 1), [C, 1]. Returns int64 [C].
    """
    cumulated = probabilities.cumsum(dim=-1)
    # Scaling by the last entry, not by 1, makes rounding of the sum harmless.
    ids = torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True)
    return ids.clamp_(max=probabilities.shape[1] - 1)[:, 0]
