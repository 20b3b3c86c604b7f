"""A loaded model computed by ``kernels.operations`` on static buffers, so that its passes can be recorded.

The weights are those of the model it is made of, and the results are the same up to rounding. Nothing in a pass is read
back to the host; how much is in the cache stands in the device's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

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
        self._layers = [_FusedLayer(cast(Layer, layer), operations) for layer in self.stack.layers]
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
                x = x + operations.mlp(operations.rms_norm(soft, conditioning.pre_norm.weight, eps), conditioning.mlp)
            return self._pass(operations.rms_norm(x, None, eps), buffers, "denoise")

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

    def _pass(self, x: Tensor, buffers: Buffers, run: Pass) -> Tensor:
        """The stack: embeddings [N, hidden] -> [N, hidden], normed. Its keys lie behind those that are kept; whether
        they are kept as well is the cache's matter.
        """
        positions = (buffers.length + torch.arange(len(x), device=x.device)).float()[:, None]
        turns = {kind: positions * frequencies for kind, frequencies in self._frequencies.items()}
        angles = {kind: (turn.cos(), turn.sin()) for kind, turn in turns.items()}
        normed = self.operations.rms_norm(x, self._layers[0].input_weight, self.config.rms_norm_eps)
        following = [*(layer.input_weight for layer in self._layers[1:]), self.stack.norm.weight]
        with self.stack.carrying():
            for index, layer in enumerate(self._layers):
                shape = self.config.layers[index]
                x, normed = layer(x, normed, following[index], *angles[_kind(shape)], buffers, run)
        return normed

    def _encode(self, ids: Tensor, buffers: Buffers) -> None:
        with on(self.device):
            self._pass(self._embed(ids), buffers, "encode")


@dataclass(frozen=True, slots=True)
class Encoding:
    """The recorded pass over ``ids``, a canvas of finished text."""

    ids: Tensor
    run: Run

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes


class _FusedLayer:
    """``stack.Layer`` for one sequence, in as few passes over the residual stream as it takes."""

    def __init__(self, layer: Layer, operations: Operations) -> None:
        self._layer = layer
        self._operations = operations
        self._eps = layer.router.eps
        self._router_weight = layer.router.scale.detach().float() * layer.router.root
        self.input_weight = layer.input_layernorm.weight

    def __call__(
        self, x: Tensor, normed: Tensor, following: Tensor, cos: Tensor, sin: Tensor, buffers: Buffers, run: Pass
    ) -> tuple[Tensor, Tensor]:
        """x: the residual stream [N, hidden], normed: as this layer reads it; following: the weight of the next norm.
        Returns the same two for what follows.
        """
        layer, operations, eps = self._layer, self._operations, self._eps
        attended = self._attend(normed, cos, sin, buffers, run)
        x, dense, routed, router = operations.residual_norms(
            x,
            attended,
            layer.post_attention_layernorm.weight,
            layer.pre_feedforward_layernorm.weight,
            layer.pre_feedforward_layernorm_2.weight,
            self._router_weight,
            eps,
        )
        dense = operations.mlp(dense, layer.mlp)
        scores = operations.linear(router, layer.router.proj)
        weights, experts = operations.route(scores, layer.router.top_k, layer.router.per_expert_scale)

        def mixture(module: nn.Module) -> Tensor:
            return operations.experts(routed, module, weights, experts)

        return operations.combine(
            x,
            dense,
            layer.experts.lend(mixture) if isinstance(layer.experts, OffloadedExperts) else mixture(layer.experts),
            layer.post_feedforward_layernorm_1.weight,
            layer.post_feedforward_layernorm_2.weight,
            layer.post_feedforward_layernorm.weight,
            layer.encoder_scalar if run == "encode" else layer.decoder_scalar,
            following,
            eps,
        )

    def _attend(self, normed: Tensor, cos: Tensor, sin: Tensor, buffers: Buffers, run: Pass) -> Tensor:
        attention, operations = self._layer.self_attn, self._operations
        shape, k, v = attention.shape, buffers.k[attention.index], buffers.v[attention.index]
        start = buffers.sliding if shape.sliding else buffers.length
        qkv = operations.linear(normed, attention.qkv_proj)
        norms = attention.q_norm.weight, attention.k_norm.weight
        q = operations.split_heads(qkv, shape.num_heads, shape.num_kv_heads, *norms, cos, sin, k, v, start, self._eps)
        if run == "encode":
            window = buffers.window if shape.sliding else None
            attended = operations.attend_causal(q, k, v, start, window)
        else:
            first = buffers.first if shape.sliding else buffers.zero
            attended = operations.attend_canvas(q, k, v, first, start)
        return operations.linear(attended, attention.o_proj)


def _kind(layer: LayerConfig) -> tuple[bool, int]:
    """Layers of a kind share their rotary angles."""
    return layer.sliding, layer.head_dim


def _static(memory: object) -> StaticCache:
    if not isinstance(memory, StaticCache):
        raise TypeError("a cache of this model is wanted: see new_cache")
    return memory
