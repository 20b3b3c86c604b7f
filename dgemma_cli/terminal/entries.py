"""What happened, in text: the engine's events as people and programs read them, without token ids.

A Narrator makes these values from events; the live view, the JSON lines, recordings and their exports consume them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Start:
    """The run that follows. prompt and system are the user's words. slow: seconds each step is held for; fit: what was
    changed so that the model fits.
    """

    model: str
    device: str
    dtype: str
    prompt: str
    system: str | None
    slow: float = 0.0
    fit: str = "as stored"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt is encoded. tokens: its length; cached: how many of them were known already."""

    tokens: int
    cached: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Block:
    """A fresh canvas of noise: its index, its positions, and its most steps."""

    block: int
    length: int
    cap: int


@dataclass(frozen=True, slots=True)
class Step:
    """One denoising step. The tuples have an entry for each position of the canvas.

    draft: the text each position would add now. accepted, changed, entropy (nats): as in the engine's event.
    thought: the position belongs to a thought, not to the answer. end: positions before the draft's first end token.
    """

    block: int
    step: int
    draft: tuple[str, ...]
    accepted: tuple[bool, ...]
    changed: tuple[bool, ...]
    entropy: tuple[float, ...]
    thought: tuple[bool, ...]
    end: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A finished block. text and thinking: what is certain now and was not before; both may be empty.

    Text that the next block may still change (space at the end, half a character) comes with a later entry. From a
    server of another program it is a piece of text as it came, and the figures are None. repaired, trimmed: as in the
    engine's event.
    """

    block: int
    text: str
    thinking: str
    tokens: int | None
    steps: int | None
    converged: bool | None
    settled: int | None
    repaired: int = 0
    trimmed: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The end, with all text and all figures (the engine's definitions). rest: the part of ``text`` that no Commit
    brought. thought_closed: False if the reply ended within a thought. A server of another program leaves figures None.
    """

    text: str
    thinking: str
    rest: str
    thought_closed: bool
    prompt_tokens: int | None
    tokens: int | None
    blocks: int | None
    steps: int | None
    tokens_per_forward: float | None
    effective_steps: float | None
    converged: bool | None
    prefill_seconds: float | None
    first_block_seconds: float
    seconds: float
    tokens_per_second: float | None
    stop_reason: str
    seed: int | None
    repaired: int = 0
    trimmed: int = 0


Entry: TypeAlias = Start | Prompt | Block | Step | Commit | Finish
