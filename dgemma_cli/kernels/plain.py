"""``operations.Operations`` in torch, on every device: slow, and what the fast ones are tested against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_cli.kernels.operations import Advance, Sample, expert_matrices
from dgemma_cli.kernels.reference import gated, route


class PlainOperations:
    """See ``operations.Operations``."""

    name = "torch reference"
    sample: Sample | None = None
    advance: Advance | None = None

    def planes(self, module: nn.Module) -> int:
        return 1

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        return module(x)  # type: ignore[no-any-return]

    def mlp(self, x: Tensor, module: nn.Module) -> Tensor:
        return module(x)  # type: ignore[no-any-return]

    def experts(self, x: Tensor, module: nn.Module, weights: Tensor, experts: Tensor) -> Tensor:
        gate_up, down = (
            [each.unpack(expert, x.dtype) for expert in range(each.count)] if not isinstance(each, Tensor) else each
            for each in expert_matrices(module)
        )
        # Every expert sees every token: how many it has is nothing that the host may know.
        chosen = x.new_zeros(*experts.shape, x.shape[1])
        for expert in range(len(gate_up)):
            output = F.linear(gated(F.linear(x, gate_up[expert])), down[expert])
            chosen = torch.where((experts == expert)[..., None], output[:, None], chosen)
        return (chosen * weights.to(x.dtype)[..., None]).flatten(0, 1)

    def scores(self, hidden: Tensor, embedding: nn.Module) -> Tensor:
        return embedding.scores(hidden)  # type: ignore[no-any-return, operator]

    def mean(self, probabilities: Tensor, embedding: nn.Module) -> Tensor:
        return embedding.mean(probabilities)  # type: ignore[no-any-return, operator]

    def rms_norm(self, x: Tensor, weight: Tensor | None, eps: float, planes: int = 1) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return _in_planes((wide if weight is None else wide * weight.float()).to(x.dtype), planes)

    def residual_norms(
        self,
        x: Tensor,
        attended: Tensor,
        post_weight: Tensor,
        dense_weight: Tensor,
        routed_weight: Tensor,
        router_weight: Tensor,
        eps: float,
        dense_planes: int = 1,
        routed_planes: int = 1,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = x + self.rms_norm(attended, post_weight, eps)
        dense = self.rms_norm(x, dense_weight, eps, dense_planes)
        routed = self.rms_norm(x, routed_weight, eps, routed_planes)
        return x, dense, routed, self.rms_norm(x, router_weight, eps)

    def combine(
        self,
        x: Tensor,
        dense: Tensor,
        routed: Tensor,
        dense_weight: Tensor,
        routed_weight: Tensor,
        post_weight: Tensor,
        scalar: Tensor,
        next_weight: Tensor,
        eps: float,
        next_planes: int = 1,
    ) -> tuple[Tensor, Tensor]:
        routed = routed.view(len(x), -1, x.shape[1]).sum(dim=1)
        both = self.rms_norm(dense, dense_weight, eps) + self.rms_norm(routed, routed_weight, eps)
        x = (x + self.rms_norm(both, post_weight, eps)) * scalar
        return x, self.rms_norm(x, next_weight, eps, next_planes)

    def split_heads(
        self,
        qkv: Tensor,
        heads: int,
        kv_heads: int,
        q_norm: Tensor,
        k_norm: Tensor,
        cos: Tensor,
        sin: Tensor,
        k: Tensor,
        v: Tensor,
        start: Tensor,
        eps: float,
    ) -> Tensor:
        split = qkv.view(len(qkv), -1, k.shape[2])  # [N, heads of all kinds, d]
        keys, values = split[:, heads : heads + kv_heads], split[:, heads + kv_heads :]
        if not values.shape[1]:
            values = keys
        places = start + torch.arange(len(qkv), device=qkv.device)
        k.index_copy_(1, places, _turn(self.rms_norm(keys, k_norm, eps), cos, sin).transpose(0, 1))
        v.index_copy_(1, places, self.rms_norm(values, None, eps).transpose(0, 1))
        return _turn(self.rms_norm(split[:, :heads], q_norm, eps), cos, sin)

    def attend_canvas(self, q: Tensor, k: Tensor, v: Tensor, first: Tensor, start: Tensor, planes: int = 1) -> Tensor:
        place = torch.arange(k.shape[1], device=k.device)
        seen = (place >= first) & (place < start + len(q))
        return _in_planes(_attend(q, k, v, seen[None]), planes)

    def attend_causal(
        self, q: Tensor, k: Tensor, v: Tensor, start: Tensor, window: int | None, planes: int = 1
    ) -> Tensor:
        place = torch.arange(k.shape[1], device=k.device)
        own = start + torch.arange(len(q), device=k.device)[:, None]
        seen = place <= own
        if window is not None:
            seen &= place > own - window
        return _in_planes(_attend(q, k, v, seen), planes)

    def route(self, scores: Tensor, top_k: int, per_expert_scale: Tensor) -> tuple[Tensor, Tensor]:
        return route(scores, top_k, per_expert_scale)


def _in_planes(x: Tensor, planes: int) -> Tensor:
    return x if planes == 1 else x.unflatten(-1, (-1, planes)).transpose(-1, -2).contiguous()


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves of the heads, [N, heads, d]."""
    cos, sin = cos[:, None], sin[:, None]
    left, right = x.float().chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """seen: bool, broadcast to [N, capacity]. What is not seen may hold anything, not even numbers."""
    by_any = seen.any(dim=0)[None, :, None]
    keys, values = torch.where(by_any, k, 0), torch.where(by_any, v, 0)
    mask = seen.expand(len(q), -1)
    found = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, scale=1.0, enable_gqa=True
    )
    return found[0].transpose(0, 1).reshape(len(q), -1)
