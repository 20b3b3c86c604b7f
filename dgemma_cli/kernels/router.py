"""The router after its projection: softmax, the top experts and their weights in one launch.

The reference is ``kernels.reference.route``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.launch import require


def route(
    scores: Tensor, top_k: int, per_expert_scale: Tensor, out: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Choose experts from router scores [N, E]: softmax over all in float32, the ``top_k`` largest, made to sum to 1,
    times each expert's own scale. Of equal scores the lower id is taken.

    Returns weights (float32) and expert ids (int32), [N, top_k] each, the largest first. out: buffers for them.
    """
    tokens, experts = scores.shape
    if out is None:
        out = (
            torch.empty(tokens, top_k, dtype=torch.float32, device=scores.device),
            torch.empty(tokens, top_k, dtype=torch.int32, device=scores.device),
        )
    require(scores, per_expert_scale, *out)
    slots = triton.next_power_of_2(top_k)
    _route[(tokens,)](
        scores, per_expert_scale, *out, top_k, slots, experts, triton.next_power_of_2(experts), num_warps=1
    )
    return out


@triton.jit
def _route(
    scores_ptr, scale_ptr, weights_ptr, experts_ptr,
    TOP_K: tl.constexpr, SLOTS: tl.constexpr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    expert = tl.arange(0, BLOCK)
    scores = tl.load(scores_ptr + token * EXPERTS + expert, expert < EXPERTS, float("-inf")).to(tl.float32)
    weights = tl.exp(scores - tl.max(scores, 0))  # the softmax's sum divides out when the chosen are made to sum to 1
    slot = tl.arange(0, SLOTS)
    best_weights = tl.zeros((SLOTS,), tl.float32)
    best = tl.zeros((SLOTS,), tl.int32)
    left = tl.where(expert < EXPERTS, scores, float("-inf"))
    for place in tl.static_range(TOP_K):
        top = tl.max(left, 0)
        chosen = tl.min(tl.where(left == top, expert, EXPERTS - 1), 0)  # an id, even of scores that are no numbers
        best_weights = tl.where(slot == place, tl.sum(tl.where(expert == chosen, weights, 0.0), 0), best_weights)
        best = tl.where(slot == place, chosen, best)
        left = tl.where(expert == chosen, float("-inf"), left)
    best_weights /= tl.sum(best_weights, 0)
    best_weights *= tl.load(scale_ptr + best).to(tl.float32)
    tl.store(weights_ptr + token * TOP_K + slot, best_weights, slot < TOP_K)
    tl.store(experts_ptr + token * TOP_K + slot, best, slot < TOP_K)
