"""The heavy arithmetic in plain torch: right on every device, differentiable; faster kernels are tested against it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gated(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up for gate and up side by side: [..., 2 I] -> [..., I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def route(scores: Tensor, top_k: int, per_expert_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Choose experts from router scores [N, E]: softmax over all in float32, the ``top_k`` largest, made to sum to 1,
    times each expert's own scale. Returns weights (float32) and expert ids (int64), [N, top_k] each.
    """
    weights, experts = scores.float().softmax(dim=-1).topk(top_k, dim=-1)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights * per_expert_scale.float()[experts], experts


def routed_experts(x: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The mixture of experts: sum over a token's experts of weight * down(gelu(gate) * up).

    x: [N, hidden]; weights, experts: [N, k]; gate_up: [E, 2 I, hidden]; down: [E, hidden, I]. Returns [N, hidden].
    Each expert runs once, over all of its tokens; the host reads how many these are.
    """
    count, top_k = experts.shape
    order = experts.flatten().argsort(stable=True)
    counts = torch.bincount(experts.flatten(), minlength=gate_up.shape[0]).tolist()
    rows = torch.split(x[order // top_k], counts)
    outputs = [
        F.linear(gated(F.linear(own, gate_up[expert])), down[expert]) for expert, own in enumerate(rows) if len(own)
    ]
    # Back from expert order to token order, then a sum of fixed order: the same bits in every run.
    unsorted = torch.cat(outputs)[order.argsort()].view(count, top_k, -1)
    return torch.einsum("nkh,nk->nh", unsorted, weights.to(unsorted.dtype))
