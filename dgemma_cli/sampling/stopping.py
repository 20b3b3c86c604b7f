"""When a canvas is finished before its cap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dgemma_cli.sampling.nats import whole


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a canvas has come. C positions.

    draft: argmax ids, int64 [C]; before: the drafts of the earlier steps, oldest first; entropy: nats, [C];
    is_eos: where the draft ends a reply, bool [C]; room: how many positions max_tokens leaves, at least 1.
    """

    draft: Tensor
    before: Sequence[Tensor]
    entropy: Tensor
    is_eos: Tensor
    room: int

    def same(self, steps: int, reach: int) -> bool:
        """Whether the first ``reach`` positions of the draft were the same in the ``steps`` steps before."""
        if len(self.before) < steps:
            return False
        recent = self.before[len(self.before) - steps :]
        return all(torch.equal(self.draft[:reach], earlier[:reach]) for earlier in recent)

    def end(self) -> int:
        """How many positions would be kept now, an EOS among them."""
        most = min(len(self.draft), self.room)
        ends = self.is_eos[:most].nonzero()
        return int(ends[0, 0]) + 1 if len(ends) else most

    def doubt(self) -> float:
        """Nats of entropy in what would be kept now."""
        return float(self.entropy[: self.end()].sum())


class Stopping(Protocol):
    """Decides after each step whether the canvas is committed as it is drafted."""

    def stop(self, progress: Progress) -> bool: ...


@dataclass(frozen=True, slots=True)
class StableAndConfident:
    """The reference: stop when the whole draft is the same as in the ``stability`` steps before it and the mean
    entropy of the whole canvas is under ``confidence`` (nats). A stability of 1 therefore takes two passes at the
    least, 0 asks for confidence alone.
    """

    stability: int
    confidence: float

    def stop(self, progress: Progress) -> bool:
        sure = bool(whole(progress.entropy).sum() < whole(self.confidence) * len(progress.draft))
        return sure and progress.same(self.stability, len(progress.draft))


@dataclass(frozen=True, slots=True)
class SettledReply:
    """Ask only of the positions that will be kept: up to and including the first EOS, and within max_tokens. What
    stands behind decides nothing, and of text that nobody reads nobody needs to be sure.

    The reference allows a canvas of C positions ``confidence`` * C nats of doubt in all; here the same allowance is for
    what is kept. Stop when those positions are the same as in the ``stability`` steps before and their entropies sum to
    less than it, or at once, without a confirming step, when they sum to less than ``sure`` nats. An EOS counts only
    while it is itself settled: as sure as ``sure`` asks, or the same as in the step before. One that flickers does not
    shorten the reach.
    """

    stability: int
    confidence: float
    sure: float

    def stop(self, progress: Progress) -> bool:
        reach = self.reach(progress)
        doubt = int(whole(progress.entropy[:reach]).sum())
        allowed = int(whole(self.confidence)) * len(progress.draft)
        return doubt < int(whole(self.sure)) or (doubt < allowed and progress.same(self.stability, reach))

    def reach(self, progress: Progress) -> int:
        """How many positions decide, from the first one on."""
        most = min(len(progress.draft), progress.room)
        ends = progress.is_eos[:most].nonzero()
        if len(ends) == 0:
            return most
        end = int(ends[0, 0])
        sure = int(whole(progress.entropy[end])) < int(whole(self.sure))
        kept = bool(progress.before) and bool(progress.before[-1][end] == progress.draft[end])
        return end + 1 if sure or kept else most
