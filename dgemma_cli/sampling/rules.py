"""Acceptance and stopping with everything that decides in the device's memory: for steps that the host does not follow.

The same decisions as ``acceptance`` and ``stopping``, which have the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_cli.sampling.acceptance import Acceptance, EntropyBound, within
from dgemma_cli.sampling.nats import whole
from dgemma_cli.sampling.stopping import SettledReply, StableAndConfident, Stopping

SETTINGS = 7  # numbers of ``settings``
_NEVER = -1  # no id


def settings(acceptance: Acceptance, stopping: Stopping, room: int, canvas: int) -> list[int]:
    """What ``Rules`` goes by. room: how many of the canvas's positions may be kept.

    Raises TypeError for a rule that it does not have.
    """
    if not isinstance(acceptance, EntropyBound):
        raise TypeError(f"no rule for {type(acceptance).__name__}")
    if isinstance(stopping, SettledReply):
        settled, sure = 1, stopping.sure
    elif isinstance(stopping, StableAndConfident):
        settled, sure = 0, 0.0
    else:
        raise TypeError(f"no rule for {type(stopping).__name__}")
    allowed = int(whole(stopping.confidence)) * canvas
    bound, spacing = int(whole(acceptance.bound)), acceptance.spacing
    return [bound, allowed, int(whole(sure)), stopping.stability, settled, min(room, canvas), spacing]


class Rules:
    """Decides by ``settings`` on a device, and remembers what it must of a canvas's steps. C positions.

    numbers: int64 [SETTINGS], written by others before the first step of a canvas. eos: the ids that end a reply, at
    least one. previous: the draft of the last step; unchanged: in how many steps before that one, without a gap, a
    position's draft was the same.
    """

    def __init__(self, numbers: Tensor, canvas: int, eos_ids: Sequence[int]) -> None:
        device = numbers.device
        self.numbers = numbers
        self.eos = torch.tensor(eos_ids or [_NEVER], dtype=torch.int64, device=device)
        self._place = torch.arange(canvas, device=device)
        self.previous = torch.zeros(canvas, dtype=torch.int64, device=device)
        self.unchanged = torch.zeros(canvas, dtype=torch.int64, device=device)

    def begin(self) -> None:
        """Before the first step of a canvas."""
        self.previous.fill_(_NEVER)

    def accept(self, entropy: Tensor) -> Tensor:
        """As ``EntropyBound.accept``: nats [C] -> bool [C]."""
        return within(entropy, self.numbers[0], self.numbers[6])

    def stop(self, draft: Tensor, entropy: Tensor) -> Tensor:
        """Whether the rule commits this draft, int64 [C], of these nats [C]: bool []. To be asked once a step, in
        order, since the draft is remembered.
        """
        _, allowed, sure, stability, settled, room, _ = self.numbers.unbind()
        self.unchanged.copy_(torch.where(draft == self.previous, self.unchanged + 1, 0))
        self.previous.copy_(draft)
        doubts, length = whole(entropy), len(draft)
        ends = (draft[:, None] == self.eos).any(dim=-1) & (self._place < room)
        end = torch.where(ends, self._place, length - 1).min()[None]  # the first, or the last position for none
        counts = ends & ((doubts < sure) | (self.unchanged >= 1))
        reach = torch.where(counts.index_select(0, end), end + 1, room)
        reach = torch.where(settled > 0, reach, length)
        doubt = torch.where(self._place < reach, doubts, 0).sum()
        same = ((self.unchanged >= stability) | (self._place >= reach)).all()
        return ((settled > 0) & (doubt < sure)) | ((doubt < allowed) & same)
