"""Held positions: text of a canvas that is given, and stays as it is from the first step to the commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_FLOOR = -1e4  # far below any logit, which are capped at 30 or so; finite, so that 0 * floor is 0


@dataclass(frozen=True, slots=True)
class Held:
    """What is given of one canvas of C positions.

    mask: bool [C], where text is given; ids: int64 [C], the text there, anything elsewhere; unending: bool [C], where
    the reply may not end because given text follows; eos: int64 [E], the ids that end a reply.
    """

    mask: Tensor
    ids: Tensor
    unending: Tensor
    eos: Tensor

    @classmethod
    def of(cls, given: Mapping[int, int], start: int, length: int, eos: Tensor) -> Held | None:
        """The part of ``given`` (position in the reply -> id) that concerns the canvas of ``length`` positions from
        ``start`` on; None if it does not concern it.
        """
        last = max(given, default=-1)
        if last < start:
            return None
        mask = torch.zeros(length, dtype=torch.bool)
        ids = torch.zeros(length, dtype=torch.int64)
        for position, token in given.items():
            if start <= position < start + length:
                mask[position - start] = True
                ids[position - start] = token
        unending = torch.arange(start, start + length) < last
        return cls(mask.to(eos.device), ids.to(eos.device), unending.to(eos.device), eos)

    @classmethod
    def nothing(cls, length: int, eos: Tensor) -> Held:
        """No text is given of a canvas of ``length`` positions."""
        nowhere = torch.zeros(length, dtype=torch.bool, device=eos.device)
        return cls(nowhere, torch.zeros(length, dtype=torch.int64, device=eos.device), nowhere, eos)

    def joined(self, mask: Tensor, ids: Tensor) -> Held:
        """With the text ``ids`` where ``mask`` is set as well, which may end the reply; what was given comes first."""
        device = self.mask.device
        joined = torch.where(self.mask, self.ids, ids.to(device))
        return Held(self.mask | mask.to(device), joined, self.unending, self.eos)

    def place(self, canvas: Tensor) -> Tensor:
        """``canvas``, int64 [C], with the given text in its place."""
        return torch.where(self.mask, self.ids, canvas)

    def impose(self, logits: Tensor) -> None:
        """Make the given text certain and an early end impossible, in ``logits`` [C, V] themselves: so the draft, the
        probabilities, the entropies and the self-conditioning that follow from them all hold it.
        """
        ends = logits.index_select(1, self.eos)
        logits.index_copy_(1, self.eos, ends.masked_fill_(self.unending[:, None], _FLOOR))
        own = logits.gather(1, self.ids[:, None])
        logits.masked_fill_(self.mask[:, None], _FLOOR)
        logits.scatter_(1, self.ids[:, None], torch.where(self.mask[:, None], 0.0, own))
