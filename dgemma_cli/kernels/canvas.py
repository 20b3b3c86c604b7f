"""What happens to a canvas after its logits are known, in one launch: acceptance, noise, and whether to stop.

Nats are summed as whole numbers (``sampling.nats``), so the decisions are exactly those of ``sampling.acceptance`` and
``sampling.stopping`` in whatever order they are summed. The same in torch is ``sampling.rules.Rules``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.launch import require

_CHUNK = 8  # positions that all others are compared with at once


def advance(
    numbers: Tensor,
    eos: Tensor,
    previous: Tensor,
    unchanged: Tensor,
    draft: Tensor,
    entropy: Tensor,
    picked: Tensor,
    noise: Tensor,
    canvas: Tensor,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Decide one step of C positions. To be called once a step, in order.

    numbers: int64 [SETTINGS] of ``sampling.rules.settings``; eos: int64 [E], ids that end a reply, at least one.
    previous: int64 [C], the draft of the step before, -1 before the first; unchanged: int64 [C], in how many steps
    before that one, without a gap, a position's draft was the same: both are brought up to date.
    draft, picked, noise: int64 [C]; entropy: float32 [C], nats. canvas: int64 [C], becomes the next step's.
    Returns which positions were accepted, bool [C], and whether the draft is to be committed, bool [1].
    """
    length = len(draft)
    if out is None:
        decided = torch.empty(length + 1, dtype=torch.bool, device=draft.device)
        out = decided[:length], decided[length:]
    require(numbers, eos, previous, unchanged, draft, entropy, picked, noise, canvas, *out)
    block = max(_CHUNK, triton.next_power_of_2(length))
    _advance[(1,)](
        numbers, eos, previous, unchanged, draft, entropy, picked, noise, canvas, *out,
        length, len(eos), block, _CHUNK, num_warps=max(1, min(8, block // 32)),
    )  # fmt: skip
    return out


@triton.jit
def _whole(nats):
    """``sampling.nats.whole``."""
    return (tl.minimum(nats.to(tl.float64), 16384.0) * 1099511627776.0).to(tl.int64)


@triton.jit
def _advance(
    numbers_ptr, eos_ptr, previous_ptr, unchanged_ptr, draft_ptr, entropy_ptr, picked_ptr, noise_ptr, canvas_ptr,
    accepted_ptr, stop_ptr,
    LENGTH: tl.constexpr, ENDS: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    place = tl.arange(0, BLOCK)
    inside = place < LENGTH
    doubt = _whole(tl.load(entropy_ptr + place, inside, 0.0))
    draft = tl.load(draft_ptr + place, inside, -1)

    # Acceptance: what lies before a position are the surer ones, and of equally sure ones those to the left.
    before = tl.zeros((BLOCK,), tl.int64)
    for chunk in range(0, LENGTH, CHUNK):
        other = chunk + tl.arange(0, CHUNK)
        theirs = _whole(tl.load(entropy_ptr + other, other < LENGTH, 0.0))[None, :]
        surer = (theirs < doubt[:, None]) | ((theirs == doubt[:, None]) & (other[None, :] < place[:, None]))
        before += tl.sum(tl.where(surer & (other[None, :] < LENGTH), theirs, 0), 1)
    accepted = (before <= tl.load(numbers_ptr)) & inside

    # Also what is the surest of the refused far around. Accepted are the surest of all, up to the one with ``most``.
    most = tl.max(tl.where(accepted, doubt, -1), 0)
    latest = tl.max(tl.where(accepted & (doubt == most), place, -1), 0)
    spacing = tl.load(numbers_ptr + 6)
    beaten = tl.zeros((BLOCK,), tl.int32)
    for chunk in range(0, LENGTH, CHUNK):
        other = chunk + tl.arange(0, CHUNK)
        theirs = _whole(tl.load(entropy_ptr + other, other < LENGTH, 0.0))[None, :]
        surer = (theirs < doubt[:, None]) | ((theirs == doubt[:, None]) & (other[None, :] < place[:, None]))
        refused = ((theirs > most) | ((theirs == most) & (other[None, :] > latest))) & (other[None, :] < LENGTH)
        near = tl.abs(other[None, :] - place[:, None]) < spacing
        beaten += tl.sum((surer & refused & near).to(tl.int32), 1)
    accepted = accepted | ((spacing > 0) & (beaten == 0))
    tl.store(accepted_ptr + place, accepted, inside)
    picked = tl.load(picked_ptr + place, inside, 0)
    tl.store(canvas_ptr + place, tl.where(accepted, picked, tl.load(noise_ptr + place, inside, 0)), inside)

    # Stability.
    unchanged = tl.load(unchanged_ptr + place, inside, 0)
    unchanged = tl.where(draft == tl.load(previous_ptr + place, inside, 0), unchanged + 1, 0)
    tl.store(previous_ptr + place, draft, inside)
    tl.store(unchanged_ptr + place, unchanged, inside)

    # Stopping: how far it is asked for, and whether it is granted.
    allowed, sure = tl.load(numbers_ptr + 1), tl.load(numbers_ptr + 2)
    stability, settled, room = tl.load(numbers_ptr + 3), tl.load(numbers_ptr + 4), tl.load(numbers_ptr + 5)
    ends = place < 0
    for index in tl.static_range(ENDS):
        ends = ends | (draft == tl.load(eos_ptr + index))
    end = tl.min(tl.where(ends & inside & (place < room), place, BLOCK), 0)
    counts = (place == end) & ((doubt < sure) | (unchanged >= 1))  # the first end, if it is itself settled
    reach = tl.where(tl.max(counts.to(tl.int32), 0) > 0, end + 1, room)
    reach = tl.where(settled > 0, reach, LENGTH)
    asked = inside & (place < reach)
    total = tl.sum(tl.where(asked, doubt, 0), 0)
    moved = tl.max((asked & (unchanged < stability)).to(tl.int32), 0)
    stop = ((settled > 0) & (total < sure)) | ((total < allowed) & (moved == 0))
    tl.store(stop_ptr, stop)
