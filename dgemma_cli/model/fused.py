"""A loaded model computed by ``kernels.operations`` on static buffers, so that its passes can be recorded.

The weights are those of the model it is made of, and the results are the same up to rounding. Nothing in a pass is read
back to the host; how much is in the cache stands in the device's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.offload import OffloadedExperts
from dgemma_cli.kernels.operations import Operations
from dgemma_cli.kernels.placing import on
from dgemma_cli.model.attention import Pass
from dgemma_cli.model.cache import KVCache, Memory
from dgemma_cli.model.config import LayerConfig
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Executor, Run
from dgemma_cli.model.rotary import inverse_frequencies
from dgemma_cli.model.stack import Layer
from dgemma_cli.model.static_cache import Buffers, Pool, StaticCache


class FusedModel(Model):
    """``model``, computed another way; it takes the modules over.

    A block of finished text, which is a canvas long, is encoded by a recorded pass. chunk: tokens that an encoder pass
    takes at the most. origin: ``model``, which plain torch computes.
    """

    origin: Model

    def __init__(self, model: Model, operations: Operations, executor: Executor, chunk: int = Model.chunk) -> None:
        nn.Module.__init__(self)  # not Model's, which would make weights
        self.__dict__["origin"] = model  # not as a module: it has the same ones
        self.config, self.defaults, self.skipped = model.config, model.defaults, model.skipped
        self._embedding_scale = model._embedding_scale
        self.embed_tokens = model.embed_tokens
        self.self_conditioning = model.self_conditioning
        self.stack = model.stack
        self.operations = operations
        self.chunk = max(chunk, self.config.canvas_length)
        self.kernels = f"{operations.name}, {executor.name}"
        self.run_by(executor)
        layers = [cast(Layer, layer) for layer in self.stack.layers]
        norms = [
            Norm(layer.input_layernorm.weight, operations.planes(layer.self_attn.qkv_proj)) for layer in layers
        ] + [Norm(self.stack.norm.weight, 1)]
        self._first = norms[0]
        self._layers = [_FusedLayer(*each, operations) for each in zip(layers, norms[1:], strict=True)]
        self._places = torch.arange(self.chunk, dtype=torch.float32, device=self.device)
        self._frequencies: dict[tuple[bool, int], Tensor] = {}
        for layer in self.config.layers:
            rotary = self.config.rotary_sliding if layer.sliding else self.config.rotary_full
            self._frequencies[_kind(layer)] = inverse_frequencies(layer.head_dim, rotary, self.device)

    def run_by(self, executor: Executor) -> None:
        """Another executor from now on. What was recorded is forgotten, once the caches there are have gone."""
        self.executor = executor
        self._pool = Pool(self.config, self._plain, self.chunk)

    def new_cache(self, slack: int = 0) -> StaticCache:
        return StaticCache(self._pool, slack)

    @property
    def spare_nbytes(self) -> int:
        return self._pool.spare_nbytes

    @torch.no_grad()
    def encode(self, ids: Tensor, cache: KVCache) -> None:
        cache = _static(cache)
        for chunk in torch.split(ids, self.chunk):
            cache.begin(len(chunk))
            if len(chunk) == self.config.canvas_length:
                self._encode_recorded(chunk, cache.buffers)
            else:
                self._encode(chunk.to(self.device), cache.buffers)
            cache.end(len(chunk))

    def run_decoder(self, canvas: Tensor, soft: Tensor | None, positions: Tensor, memory: Memory) -> Tensor:
        """See ``Model.run_decoder``; the positions are those behind the cache, one canvas after the other."""
        buffers = _static(memory).buffers
        rows = [self.decode(ids, None if soft is None else soft[n], buffers) for n, ids in enumerate(canvas)]
        return torch.stack(rows)

    def decode(self, canvas: Tensor, soft: Tensor | None, buffers: Buffers) -> Tensor:
        """One decoder pass, fit to be recorded. canvas: int64 [C]; soft: [C, hidden]. Returns [C, hidden], normed."""
        conditioning, operations, eps = self.self_conditioning, self.operations, self.config.rms_norm_eps
        with on(self.device):
            x = self._embed(canvas)
            if soft is not None:
                planes = operations.planes(conditioning.mlp.gate_up_proj)
                normed = operations.rms_norm(soft, conditioning.pre_norm.weight, eps, planes)
                x = x + operations.mlp(normed, conditioning.mlp)
            stream = self._begin(operations.rms_norm(x, None, eps), buffers)
            with self.stack.carrying():
                for layer in self._layers:
                    stream = layer(stream, buffers, "denoise")
            return stream.normed

    def scores(self, hidden: Tensor) -> Tensor:
        """The head before its cap: [C, hidden] -> [C, V], of the model's dtype."""
        with on(self.device):
            return self.operations.scores(hidden, self.embed_tokens)

    def head(self, hidden: Tensor) -> Tensor:
        cap = self.config.logit_softcap
        scores = self.scores(hidden.flatten(0, -2))  # one row a position, also of several canvases
        return scores.float().div_(cap).tanh_().mul_(cap).view(*hidden.shape[:-1], -1)

    def expected_embedding(self, probabilities: Tensor) -> Tensor:
        with on(self.device):
            return self.operations.mean(probabilities, self.embed_tokens) * self._embedding_scale

    def _encode_recorded(self, ids: Tensor, buffers: Buffers) -> None:
        programs = buffers.programs
        if "encode" not in programs:
            held = torch.zeros_like(ids, device=self.device)
            programs["encode"] = Encoding(held, self.executor.record(lambda: self._encode(held, buffers)))
        encoding = cast(Encoding, programs["encode"])
        encoding.ids.copy_(ids, non_blocking=True)
        encoding.run()

    def _encode(self, ids: Tensor, buffers: Buffers) -> None:
        """For the sake of the cache alone: of the last layer only keys and values are computed. They lie behind those
        that are kept; whether they are kept as well is the cache's matter.
        """
        *layers, last = self._layers
        with on(self.device):
            stream = self._begin(self._embed(ids), buffers)
            with self.stack.carrying(without=1):
                for layer in layers:
                    stream = layer(stream, buffers, "encode")
                last.keep(stream, buffers)

    def _begin(self, x: Tensor, buffers: Buffers) -> Stream:
        """Before the first layer. x: embeddings [N, hidden], whose positions are those behind the kept ones."""
        positions = (buffers.length + self._places[: len(x)])[:, None]  # whole numbers, exact in float32
        turns = {kind: positions * frequencies for kind, frequencies in self._frequencies.items()}
        angles = {kind: (turn.cos(), turn.sin()) for kind, turn in turns.items()}
        normed = self.operations.rms_norm(x, self._first.weight, self.config.rms_norm_eps, self._first.planes)
        return Stream(x, normed, angles)


@dataclass(frozen=True, slots=True)
class Encoding:
    """The recorded pass over ``ids``, a canvas of finished text."""

    ids: Tensor
    run: Run

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes


class Norm(NamedTuple):
    """What is multiplied by behind a norm, [hidden], and the planes that its reader wants."""

    weight: Tensor
    planes: int


class Stream(NamedTuple):
    """Between two layers. x: the residual stream, [N, hidden]; normed: that as the next layer reads it, in its planes;
    angles: cosines and sines for each kind of layer, float32 [N, d / 2].
    """

    x: Tensor
    normed: Tensor
    angles: Mapping[tuple[bool, int], tuple[Tensor, Tensor]]


class _FusedLayer:
    """``stack.Layer`` for one sequence, in as few passes over the residual stream as it takes.

    following: the norm behind it, the next layer's first or the last of all.
    """

    def __init__(self, layer: Layer, following: Norm, operations: Operations) -> None:
        self._layer = layer
        self._following = following
        self._operations = operations
        self._eps = layer.router.eps
        self._router_weight = layer.router.scale.detach().float() * layer.router.root
        experts = layer.experts.kept if isinstance(layer.experts, OffloadedExperts) else layer.experts
        self._attended_planes = operations.planes(layer.self_attn.o_proj)
        self._dense_planes = operations.planes(layer.mlp.gate_up_proj)
        self._routed_planes = operations.planes(experts)

    def __call__(self, stream: Stream, buffers: Buffers, run: Pass) -> Stream:
        layer, operations, eps = self._layer, self._operations, self._eps
        attended = self._attend(self._heads(stream, buffers), buffers, run)
        x, dense, routed, router = operations.residual_norms(
            stream.x,
            attended,
            layer.post_attention_layernorm.weight,
            layer.pre_feedforward_layernorm.weight,
            layer.pre_feedforward_layernorm_2.weight,
            self._router_weight,
            eps,
            self._dense_planes,
            self._routed_planes,
        )
        dense = operations.mlp(dense, layer.mlp)
        scores = operations.linear(router, layer.router.proj)
        weights, experts = operations.route(scores, layer.router.top_k, layer.router.per_expert_scale)

        def mixture(module: nn.Module) -> Tensor:
            return operations.experts(routed, module, weights, experts)

        x, normed = operations.combine(
            x,
            dense,
            layer.experts.lend(mixture) if isinstance(layer.experts, OffloadedExperts) else mixture(layer.experts),
            layer.post_feedforward_layernorm_1.weight,
            layer.post_feedforward_layernorm_2.weight,
            layer.post_feedforward_layernorm.weight,
            layer.encoder_scalar if run == "encode" else layer.decoder_scalar,
            self._following.weight,
            eps,
            self._following.planes,
        )
        return Stream(x, normed, stream.angles)

    def keep(self, stream: Stream, buffers: Buffers) -> None:
        """Keys and values alone, into the buffers."""
        self._heads(stream, buffers)

    def _heads(self, stream: Stream, buffers: Buffers) -> Tensor:
        """Writes keys and values; returns the queries, [N, heads, d]."""
        attention = self._layer.self_attn
        shape = attention.shape
        qkv = self._operations.linear(stream.normed, attention.qkv_proj)
        return self._operations.split_heads(
            qkv,
            shape.num_heads,
            shape.num_kv_heads,
            attention.q_norm.weight,
            attention.k_norm.weight,
            *stream.angles[_kind(shape)],
            buffers.k[attention.index],
            buffers.v[attention.index],
            buffers.sliding if shape.sliding else buffers.length,
            self._eps,
        )

    def _attend(self, q: Tensor, buffers: Buffers, run: Pass) -> Tensor:
        attention, operations, planes = self._layer.self_attn, self._operations, self._attended_planes
        shape, k, v = attention.shape, buffers.k[attention.index], buffers.v[attention.index]
        start = buffers.sliding if shape.sliding else buffers.length
        if run == "encode":
            window = buffers.window if shape.sliding else None
            attended = operations.attend_causal(q, k, v, start, window, planes)
        else:
            first = buffers.first if shape.sliding else buffers.zero
            attended = operations.attend_canvas(q, k, v, first, start, planes)
        return operations.linear(attended, attention.o_proj)


def _kind(layer: LayerConfig) -> tuple[bool, int]:
    """Layers of a kind share their rotary angles."""
    return layer.sliding, layer.head_dim


def _static(memory: object) -> StaticCache:
    if not isinstance(memory, StaticCache):
        raise TypeError("a cache of this model is wanted: see new_cache")
    return memory
