"""The heavy arithmetic in plain torch: right on every device, differentiable; faster kernels are tested against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_cli.kernels.at_once import at_once
from dgemma_cli.kernels.crew import current, whole


def gated(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up for gate and up side by side: [..., 2 I] -> [..., I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


@at_once
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
    host reads how many these are. The members of a crew take an expert each, those with most tokens first.
    """

    def run_all(some: Sequence[int], x: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        return [run(expert, x.index_select(0, own)) for expert, own in zip(some, rows, strict=True)]

    return routed_groups(x, weights, experts, count, run_all, 1)


def routed_groups(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    count: int,
    run: Callable[[Sequence[int], Tensor, Sequence[Tensor]], Sequence[Tensor]],
    most: int,
) -> Tensor:
    """The same for a ``run`` that takes up to ``most`` experts, x, and which of its rows go to each, and gives their
    outputs.
    """
    tokens, top_k = experts.shape
    flat, team = experts.flatten(), current()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=count).tolist()
    rows_of = {expert: rows for expert, rows in enumerate(torch.split(order // top_k, counts)) if len(rows)}
    longest_first = sorted(rows_of, key=lambda expert: len(rows_of[expert]), reverse=True)

    def run_some(some: Sequence[int]) -> Sequence[Tensor]:
        return run(some, x, [rows_of[expert] for expert in some])

    groups = [longest_first[first : first + most] for first in range(0, len(longest_first), most)]
    outputs = dict(zip(longest_first, chain.from_iterable(team.map(run_some, groups)), strict=True))
    by_expert = torch.cat([outputs[expert] for expert in rows_of])
    # Each token gathers its k outputs and sums them in a fixed order, in one pass: the same bits in every run.
    places = order.argsort().view(tokens, top_k)
    share = -(-tokens // team.size)

    def gather(own: tuple[Tensor, Tensor]) -> Tensor:
        return F.embedding_bag(own[0], by_expert, per_sample_weights=own[1].to(x.dtype), mode="sum")

    return whole(team.map(gather, zip(places.split(share), weights.split(share), strict=True)))
