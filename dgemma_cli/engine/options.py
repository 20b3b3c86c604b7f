"""What a caller may ask of a generation. Imports no torch, so that the command line can build one cheaply."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dgemma_cli.errors import UsageError
from dgemma_cli.sampling.presets import DEFAULT, PRESETS, Preset

CONTEXT = 8192  # tokens of prompt and reply that memory is judged for, where nothing else is asked
SEEDS = 1 << 63


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one ``generate`` call. ``None`` means: as the checkpoint's generation_config.json says.

    max_tokens: kept tokens at the most (not one canvas: several blocks follow one another).
    seed: the same seed gives the same text on one machine; ``None`` draws one, told in the statistics.
    preset: a name in sampling.presets, or a preset of one's own: the policies, on which the settings below are laid.
    steps: cap on the denoising steps of a canvas. t_min, t_max: temperatures at the end and the start of ``horizon``
    steps; the reference preset ties the horizon to the cap.
    entropy_bound: nats; spacing: positions (``sampling.acceptance``); stability: steps the draft must stay the same;
    confidence: mean entropy (nats) to stop.
    repair: denoise a second time what has not settled at the cap, or runs in a loop, the rest of the block held.
    guard: cut off a loop that runs to the end of a block; end the reply where it comes back at once.
    best_of: canvases denoised side by side for each block; the surest is kept.
    held: text that is given, position in the reply (from 0) -> token id. It stands there in every step and in the
    reply, which does not end before the last of these positions.
    drafts: whether a ``Denoised`` event is wanted for every step; without it nothing is copied off the device.
    """

    max_tokens: int = 2048
    seed: int | None = None
    preset: str | Preset = DEFAULT
    steps: int | None = None
    horizon: int | None = None
    t_min: float | None = None
    t_max: float | None = None
    entropy_bound: float | None = None
    spacing: int | None = None
    stability: int | None = None
    confidence: float | None = None
    best_of: int | None = None
    repair: bool = False
    guard: bool = True
    held: Mapping[int, int] | None = None
    drafts: bool = True

    def __post_init__(self) -> None:
        def check(name: str, low: float, exclusive: bool = False) -> None:
            value = getattr(self, name)
            if value is None:
                return
            if not math.isfinite(value) or value < low or (exclusive and value == low):
                bound = f"more than {low:g}" if exclusive else f"at least {low:g}"
                raise UsageError(f"{name.replace('_', '-')} must be {bound}, not {value}.")

        if isinstance(self.preset, str) and self.preset not in PRESETS:
            raise UsageError(f"There is no preset {self.preset!r}.", f"Presets: {', '.join(PRESETS)}.")
        check("max_tokens", 1)
        check("seed", 0)
        if self.seed is not None and self.seed >= SEEDS:
            raise UsageError(f"seed must be at most {SEEDS - 1}, not {self.seed}.")
        check("steps", 1)
        check("horizon", 1)
        check("t_min", 0, exclusive=True)
        check("t_max", 0, exclusive=True)
        check("entropy_bound", 0, exclusive=True)
        check("spacing", 0)
        check("stability", 0)
        check("confidence", 0, exclusive=True)
        check("best_of", 1)
        for position, token in (self.held or {}).items():
            if position < 0 or token < 0:
                raise UsageError(f"Held positions and ids are at least 0, not {position}: {token}.")
