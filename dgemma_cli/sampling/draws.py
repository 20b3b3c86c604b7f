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


def seeds(seed: int, count: int) -> list[int]:
    """Seeds for ``count`` canvases denoised side by side; the first is ``seed`` itself."""
    return [(seed + index * 0x9E3779B97F4A7C15) % 2**64 if index else seed for index in range(count)]


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

    def ahead(self, noise: Tensor, uniform: Tensor) -> None:
        """Fill in what a block of up to n steps will draw, without drawing it: as if ``noise``, and then for each step
        ``pick`` and ``noise``, were called.

        noise: int64 [n + 1, C]; uniform: float32 [n, C], the numbers that ``pick`` goes by. Both on the CPU.
        """
        state = self._generator.get_state()
        self._draw(noise, uniform)
        self._generator.set_state(state)

    def skip(self, steps: int) -> None:
        """Draw, and throw away, what a block of so many steps draws."""
        shape = steps + 1, self._canvas_length
        self._draw(torch.empty(shape, dtype=torch.int64), torch.empty(steps, self._canvas_length))

    def _draw(self, noise: Tensor, uniform: Tensor) -> None:
        noise[0] = torch.randint(self._vocab_size, (self._canvas_length,), generator=self._generator)
        for step, numbers in enumerate(uniform, start=1):
            torch.rand(self._canvas_length, generator=self._generator, out=numbers)
            noise[step] = torch.randint(self._vocab_size, (self._canvas_length,), generator=self._generator)


_CHUNK = 256  # ids summed at once before any are cumulated


def pick_by_inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The first id at which the cumulated probability exceeds the uniform number, to within rounding; never an id of
    probability zero.

    probabilities: [C, V], not negative, rows need not sum to exactly 1; uniform: in [0, 1), [C, 1]. Returns int64 [C].
    """
    # Only the chunk that holds the id is cumulated: a whole cumsum takes many times as long as the chunks' sums.
    padding = -probabilities.shape[1] % _CHUNK
    padded = torch.nn.functional.pad(probabilities, (0, padding)) if padding else probabilities
    chunks = padded.view(len(padded), -1, _CHUNK)
    cumulated = chunks.sum(dim=-1).cumsum(dim=-1)
    # Scaling by the last entry, not by 1, makes rounding of the sum harmless.
    threshold = uniform * cumulated[:, -1:]
    chunk = _first_above(cumulated, threshold)
    before = torch.where(chunk > 0, cumulated.gather(1, (chunk - 1).clamp_(min=0)), 0.0)
    inside = chunks.gather(1, chunk[..., None].expand(-1, -1, _CHUNK))[:, 0].cumsum(dim=-1)
    return (chunk * _CHUNK + _first_above(inside, threshold - before))[:, 0]


def _first_above(cumulated: Tensor, threshold: Tensor) -> Tensor:
    """The first index at which the ascending ``cumulated`` [C, n] exceeds ``threshold`` [C, 1], or its last step up."""
    last = cumulated[:, -1:]
    return torch.searchsorted(cumulated, torch.minimum(threshold, last.nextafter(torch.zeros_like(last))), right=True)
