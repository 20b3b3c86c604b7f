"""When a canvas is finished before its cap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class StableAndConfident:
    """Stop when the draft is the same as in the ``stability`` steps before it and the mean entropy is under
    ``confidence`` (nats). A stability of 1 therefore takes two passes at the least, 0 asks for confidence alone.
    """

    stability: int
    confidence: float

    def stop(self, draft: Tensor, before: Sequence[Tensor], entropy: Tensor) -> bool:
        """draft: argmax ids [C]; before: the drafts of the earlier steps, oldest first; entropy: [C]."""
        if len(before) < self.stability or not bool(entropy.mean() < self.confidence):
            return False
        recent = before[len(before) - self.stability :]
        return all(torch.equal(draft, earlier) for earlier in recent)
