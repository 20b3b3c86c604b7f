"""The heavy arithmetic in plain torch: right on every device, differentiable; faster kernels are tested against it."""

from __future__ import annotations

from collections.abc import Callable

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


def routed_experts(
    x: Tensor, weights: Tensor, experts: Tensor, count: int, run: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """The mixture of experts: for each token the sum over its experts of weight * expert(token).

    x: [N, hidden]; weights, experts: [N, k]; count: how many experts there are; run(expert, rows): one expert's output
    for its rows, [n, hidden] -> [n, hidden]. Returns [N, hidden]. Each expert runs once, over all of its tokens; the
    host reads how many these are.
    """
    tokens, top_k = experts.shape
    flat = experts.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=count).tolist()
    groups = torch.split(x.index_select(0, order // top_k), counts)
    outputs = [run(expert, rows) for expert, rows in enumerate(groups) if len(rows)]
    # Each token gathers its k outputs and sums them in a fixed order, in one pass: the same bits in every run.
    outputs_by_expert = torch.cat(outputs)
    places = order.argsort().view(tokens, top_k)
    return F.embedding_bag(places, outputs_by_expert, per_sample_weights=weights.to(x.dtype), mode="sum")
