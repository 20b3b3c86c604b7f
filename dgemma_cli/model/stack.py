"""The transformer stack, stored once and run in two ways: causally over text, bidirectionally over a canvas."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgemma_cli.model.attention import Attention, Pass
from dgemma_cli.model.cache import Memory
from dgemma_cli.model.config import LayerConfig, ModelConfig
from dgemma_cli.model.experts import MLP, Experts, Router
from dgemma_cli.model.norm import RMSNorm
from dgemma_cli.model.rotary import angles, inverse_frequencies


class Layer(nn.Module):
    """Attention, then a dense MLP and routed experts side by side, each with a norm before and after."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, index: int) -> None:
        super().__init__()

        def norm() -> RMSNorm:
            return RMSNorm(config.hidden_size, config.rms_norm_eps)

        self.input_layernorm = norm()
        self.self_attn = Attention(config, layer, index)
        self.post_attention_layernorm = norm()
        self.pre_feedforward_layernorm = norm()
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.post_feedforward_layernorm_1 = norm()
        self.router = Router(config)
        self.pre_feedforward_layernorm_2 = norm()
        self.experts = Experts(config)
        self.post_feedforward_layernorm_2 = norm()
        self.post_feedforward_layernorm = norm()
        # The one parameter that the encoder does not share with the decoder.
        self.encoder_scalar = nn.Parameter(torch.ones(1))
        self.decoder_scalar = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, memory: Memory, run: Pass) -> Tensor:
        """x: the residual stream, [B, T, hidden] in and out."""
        attended = self.self_attn(self.input_layernorm(x), cos, sin, memory, run)
        x = x + self.post_attention_layernorm(attended)
        dense = self.post_feedforward_layernorm_1(self.mlp(self.pre_feedforward_layernorm(x)))
        flat = x.reshape(-1, x.shape[-1])  # [N, hidden]
        weights, experts = self.router(flat)
        routed = self.experts(self.pre_feedforward_layernorm_2(flat), weights, experts).view_as(x)
        routed = self.post_feedforward_layernorm_2(routed)
        x = x + self.post_feedforward_layernorm(dense + routed)
        return x * (self.encoder_scalar if run == "encode" else self.decoder_scalar)


class Stack(nn.Module):
    """All layers and the final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config, layer, index) for index, layer in enumerate(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, memory: Memory, run: Pass) -> Tensor:
        """x: embeddings [B, T, hidden]; positions: int64 [B, T]. Returns the normed output, [B, T, hidden]."""
        turns: dict[tuple[bool, int], tuple[Tensor, Tensor]] = {}
        for layer, shape in zip(self.layers, self.config.layers, strict=True):
            kind = (shape.sliding, shape.head_dim)
            if kind not in turns:
                rotary = self.config.rotary_sliding if shape.sliding else self.config.rotary_full
                turns[kind] = angles(positions, inverse_frequencies(shape.head_dim, rotary, x.device))
            x = layer(x, *turns[kind], memory, run)
        return self.norm(x)  # type: ignore[no-any-return]
