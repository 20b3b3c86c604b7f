"""The routed half of a layer's feed-forward part: a router and its experts; and the dense MLP beside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_cli.kernels.at_once import at_once
from dgemma_cli.kernels.reference import gated, route, routed_experts
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.model.norm import rms_norm


class MLP(nn.Module):
    """down(gelu(gate) * up); ``gate_up_proj`` stacks the rows of gate_proj and up_proj."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden, 2 * intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(gated(self.gate_up_proj(x)))  # type: ignore[no-any-return]


class Router(nn.Module):
    """Which experts a token goes to, and how much each counts. Reads the raw residual, not the normed one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k = config.top_k_experts
        self.eps = config.rms_norm_eps
        self.root = config.hidden_size**-0.5
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.num_experts))

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """residual: [N, hidden]. Returns weights (float32) and expert ids, [N, top_k] each."""
        scores = self.proj(_scaled(rms_norm(residual, None, self.eps), self.scale, self.root))
        return route(scores, self.top_k, self.per_expert_scale)


@at_once
def _scaled(x: Tensor, scale: Tensor, root: float) -> Tensor:
    return x * scale * root


class Experts(nn.Module):
    """All experts of a layer: gate_up_proj [E, 2 I, hidden] (gate rows first), down_proj [E, hidden, I]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        count, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, inner))
        if not self.gate_up_proj.is_meta:
            nn.init.normal_(self.gate_up_proj, std=hidden**-0.5)
            nn.init.normal_(self.down_proj, std=inner**-0.5)

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x: [N, hidden]; weights, experts: [N, top_k]. Returns [N, hidden]."""
        return routed_experts(x, weights, experts, self.gate_up_proj.shape[0], self._run)

    def _run(self, expert: int, rows: Tensor) -> Tensor:
        return F.linear(gated(F.linear(rows, self.gate_up_proj[expert])), self.down_proj[expert])
