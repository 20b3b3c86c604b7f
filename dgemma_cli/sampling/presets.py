"""Named sets of sampler policies. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset changes of the checkpoint's own sampler settings; ``None`` leaves a setting alone.

    settled_reply: stop by the kept positions (SettledReply), not by the whole canvas. sure: its nats for stopping
    without a confirming step. steps: the cap. horizon: steps of the temperature schedule; ``None`` ties it to the cap.
    spacing: of the acceptance (EntropyBound). best_of: canvases denoised side by side.
    """

    settled_reply: bool = False
    sure: float = 0.0
    steps: int | None = None
    horizon: int | None = None
    entropy_bound: float | None = None
    spacing: int = 0
    confidence: float | None = None
    best_of: int = 1


PRESETS = {
    "reference": Preset(),
    "quality": Preset(settled_reply=True, horizon=48),
    "balanced": Preset(settled_reply=True, sure=0.2, horizon=48, spacing=12),
    "fast": Preset(settled_reply=True, sure=1.2, horizon=48, spacing=8),
}

# The checkpoint's own settings are --preset reference.
DEFAULT = "balanced"
