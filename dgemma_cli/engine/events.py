"""What happens during a generation, as small immutable values. The engine yields them; everything else consumes them.

The order of one generation: PromptEncoded, then for each block BlockStarted, Denoised (one a step), BlockCommitted,
and Finished once at the end. The values are plain Python numbers and tuples: no tensors, nothing of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

StopReason: TypeAlias = Literal["eos", "length", "context", "repetition"]


@dataclass(frozen=True, slots=True)
class PromptEncoded:
    """The prompt is in the KV cache. tokens: its length; cached: how many of them were there already."""

    tokens: int
    cached: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BlockStarted:
    """A fresh canvas of noise. index counts from 0; length is the number of its positions, cap its most steps."""

    index: int
    length: int
    cap: int


@dataclass(frozen=True, slots=True)
class Denoised:
    """One denoising step. All tuples have one entry for each position of the canvas.

    step counts from 1. canvas: the draft, the argmax ids (what would be committed now). accepted: the positions the
    sampler kept as settled text for the next step; the others are noise again. entropy: nats. changed: the draft
    differs from the step before (all True on the first).
    """

    block: int
    step: int
    canvas: tuple[int, ...]
    accepted: tuple[bool, ...]
    entropy: tuple[float, ...]
    changed: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class BlockCommitted:
    """A block of finished text.

    ids: the kept tokens, cut before the first EOS and at max_tokens; may be empty. steps: passes it took.
    converged: it stopped by itself, not at the cap. settled: kept positions whose draft was the same in the
    last two passes. repaired: positions denoised a second time. trimmed: tokens at its end that only repeated what
    stands before them, cut off and not among ids.
    """

    index: int
    ids: tuple[int, ...]
    steps: int
    converged: bool
    settled: int
    repaired: int = 0
    trimmed: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of one generation, by the technical report's definitions.

    tokens: kept tokens, the EOS not among them. valid_tokens: the same with it. steps: denoising passes in all.
    tokens_per_forward: valid_tokens / (steps + blocks - 1). effective_steps: passes of a block, weighted by its
    valid tokens. seconds: prompt and blocks; the others are parts of it. seed: the one used. repaired, trimmed: of all
    blocks.
    """

    prompt_tokens: int
    cached_tokens: int
    tokens: int
    valid_tokens: int
    blocks: int
    steps: int
    converged: bool
    effective_steps: float
    prefill_seconds: float
    first_block_seconds: float
    seconds: float
    seed: int
    repaired: int = 0
    trimmed: int = 0

    @property
    def tokens_per_forward(self) -> float:
        return self.valid_tokens / max(1, self.steps + self.blocks - 1)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """The end. reason: an EOS came, max_tokens was reached, the context is full, or the text only repeats itself."""

    reason: StopReason
    statistics: Statistics


Event: TypeAlias = PromptEncoded | BlockStarted | Denoised | BlockCommitted | Finished
