"""The transformer stack, stored once and run in two ways: causally over text, bidirectionally over a canvas."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.crew import current, whole
from dgemma_cli.kernels.offload import Ferry
from dgemma_cli.model.attention import Attention, Heads, Pass
from dgemma_cli.model.cache import KVCache, Memory
from dgemma_cli.model.config import LayerConfig, ModelConfig
from dgemma_cli.model.experts import MLP, Experts, Router
from dgemma_cli.model.norm import RMSNorm
from dgemma_cli.model.rotary import angles, inverse_frequencies

Angles = tuple[Tensor, Tensor]


class Part(NamedTuple):
    """Some of the positions, before a layer. x: the residual stream, [B, T, hidden]; turns: the angles of each kind of
    layer; heads: queries, keys and values of that layer, None behind the last.
    """

    x: Tensor
    turns: dict[tuple[bool, int], Angles]
    heads: Heads | None


class Halfway(NamedTuple):
    """Some of the positions, between a layer's attention and its end. x: the residual stream, dense: the MLP's output,
    [B, T, hidden] both; routed: the experts' input, [B * T, hidden]; weights, experts: the router's, [B * T, top_k].
    """

    x: Tensor
    dense: Tensor
    routed: Tensor
    weights: Tensor
    experts: Tensor


class Layer(nn.Module):
    """Attention, then a dense MLP and routed experts side by side, each with a norm before and after.

    Between attention and the experts, where positions meet, it is in three parts that any of them may pass alone.
    """

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

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Heads:
        """x: the residual stream, [B, T, hidden]."""
        heads: Heads = self.self_attn.project(self.input_layernorm(x), cos, sin)
        return heads

    def middle(self, x: Tensor, attended: Tensor) -> Halfway:
        """attended: [B, heads, T, d]."""
        x = x + self.post_attention_layernorm(self.self_attn.output(attended))
        dense = self.post_feedforward_layernorm_1(self.mlp(self.pre_feedforward_layernorm(x)))
        flat = x.reshape(-1, x.shape[-1])
        return Halfway(x, dense, self.pre_feedforward_layernorm_2(flat), *self.router(flat))

    def end(self, half: Halfway, routed: Tensor, run: Pass) -> Tensor:
        """routed: the experts' output, [B * T, hidden]. Returns the residual stream, [B, T, hidden]."""
        routed = self.post_feedforward_layernorm_2(routed.view_as(half.x))
        x: Tensor = half.x + self.post_feedforward_layernorm(half.dense + routed)
        return x * (self.encoder_scalar if run == "encode" else self.decoder_scalar)


class Stack(nn.Module):
    """All layers and the final norm. The members of a crew take some of the positions each, and meet for attention and
    for the experts. ferry: who brings the experts that are kept in the host's memory, if some are.
    """

    ferry: Ferry | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config, layer, index) for index, layer in enumerate(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, memory: Memory, run: Pass) -> Tensor:
        """x: embeddings [B, T, hidden]; positions: int64 [B, T]. Returns the normed output, [B, T, hidden]."""
        parts = self._parts(x, positions)
        with self.carrying():
            for index in range(len(self.layers)):
                parts = self._layer(index, parts, memory, run)
        return whole(current().map(self.norm, (part.x for part in parts)), dim=1)

    def fill(self, x: Tensor, positions: Tensor, cache: KVCache) -> None:
        """As ``forward`` to encode, for the sake of the cache alone: of the last layer only its keys are computed."""
        parts = self._parts(x, positions)
        with self.carrying(without=1):
            for index in range(len(self.layers) - 1):
                parts = self._layer(index, parts, cache, "encode")
        _, keys, values = _heads(parts)
        cache.keep(len(self.layers) - 1, keys, values)

    def carrying(self, without: int = 0) -> AbstractContextManager[None]:
        """Around the layers of a pass, which may need experts to be brought; without those of so many at the end."""
        return nullcontext() if self.ferry is None else self.ferry.carrying(without)

    def _parts(self, x: Tensor, positions: Tensor) -> list[Part]:
        team = current()
        share = -(-x.shape[1] // team.size)

        def begin(own: tuple[Tensor, Tensor]) -> Part:
            turns = {}
            for shape in self.config.layers:
                if (kind := _kind(shape)) not in turns:
                    rotary = self.config.rotary_sliding if shape.sliding else self.config.rotary_full
                    turns[kind] = angles(own[1], inverse_frequencies(shape.head_dim, rotary, x.device))
            return self._before(0, own[0], turns)

        return team.map(begin, zip(x.split(share, dim=1), positions.split(share, dim=1), strict=True))

    def _at(self, index: int) -> Layer:
        return cast(Layer, self.layers[index])

    def _before(self, index: int, x: Tensor, turns: dict[tuple[bool, int], Angles]) -> Part:
        if index == len(self.layers):
            return Part(x, turns, None)
        return Part(x, turns, self._at(index).project(x, *turns[_kind(self.config.layers[index])]))

    def _layer(self, index: int, parts: Sequence[Part], memory: Memory, run: Pass) -> list[Part]:
        layer, team = self._at(index), current()
        attended = layer.self_attn(_heads(parts), memory, run).split([part.x.shape[1] for part in parts], dim=2)
        halves = team.map(lambda pair: layer.middle(pair[0].x, pair[1]), zip(parts, attended, strict=True))
        routed = layer.experts(
            whole([half.routed for half in halves]),
            whole([half.weights for half in halves]),
            whole([half.experts for half in halves]),
        ).split([len(half.routed) for half in halves])

        def onward(own: tuple[Part, Halfway, Tensor]) -> Part:
            part, half, found = own
            return self._before(index + 1, layer.end(half, found, run), part.turns)

        return team.map(onward, zip(parts, halves, routed, strict=True))


def _kind(layer: LayerConfig) -> tuple[bool, int]:
    """What the angles of a layer hang on."""
    return layer.sliding, layer.head_dim


def _heads(parts: Sequence[Part]) -> Heads:
    """Queries, keys and values of all positions."""
    own = [part.heads for part in parts if part.heads is not None]
    q, k, v = (whole(kind, dim=2) for kind in zip(*own, strict=True))
    return q, k, v
