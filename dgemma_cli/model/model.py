"""DiffusionGemma: an encoder that fills the KV cache and a decoder that denoises a canvas, on one stack of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.at_once import at_once
from dgemma_cli.kernels.crew import crew, current, whole
from dgemma_cli.model.cache import Apart, KVCache, Memory
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.model.embedding import Embedding
from dgemma_cli.model.experts import MLP
from dgemma_cli.model.norm import RMSNorm, rms_norm
from dgemma_cli.model.stack import Stack

T = TypeVar("T")

_TILE = 1024  # ids whose logits for a canvas a CPU's second-level cache holds


@at_once
def _cap(out: Tensor, scores: Tensor, cap: float) -> Tensor:
    """cap * tanh(scores / cap), by the far cheaper sigmoid; a tile stays in the cache for all passes over it."""
    return out.copy_(scores).mul_(2 / cap).sigmoid_().mul_(2 * cap).sub_(cap)


class SelfConditioning(nn.Module):
    """Mixes the previous step's soft embedding into the canvas's embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.eps = config.rms_norm_eps

    def forward(self, embedded: Tensor, soft: Tensor | None) -> Tensor:
        """embedded, soft: [B, C, hidden]; ``None`` is a first step. The last norm runs in either case."""
        if soft is not None:
            embedded = embedded + self.mlp(self.pre_norm(soft))
        return rms_norm(embedded, None, self.eps)


class Model(nn.Module):
    """The network. ``encode``, ``denoise`` and ``soft_embedding`` serve one text; ``run_*`` and ``head`` serve batches
    and are differentiable, for training.
    """

    chunk = 1024  # tokens an encoder pass takes at once; bounds the memory of a long prompt

    fit = "as stored"  # or what was changed of its storage so that it fits, for people to read

    crewed = False  # whether a crew of threads computes its passes: on a CPU, for a model worth their meetings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self._embedding_scale = math.sqrt(config.hidden_size)
        self.defaults = GenerationDefaults()
        self.skipped = 0  # tensors of the checkpoint left on disk: the vision tower
        self.kernels = "torch reference"  # what computes its matrix products, for people to read
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.self_conditioning = SelfConditioning(config)
        self.stack = Stack(config)

    @property
    def device(self) -> torch.device:
        return self._plain.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic. Packed weights have dtypes of their own."""
        return self._plain.dtype

    @property
    def _plain(self) -> Tensor:
        """A parameter that no format packs."""
        weight: Tensor = self.stack.norm.weight
        return weight

    def new_cache(self, slack: int = 0) -> KVCache:
        """An empty cache. slack: how many tokens back a ``cut`` is sure to be exact."""
        return KVCache(self.config, self._plain, slack)

    @property
    def spare_nbytes(self) -> int:
        """Bytes that are kept for the next cache."""
        return 0

    @torch.no_grad()
    def encode(self, ids: Tensor, cache: KVCache) -> None:
        """Append text to the cache. ids: int64 [T]; runs causally, in chunks."""
        for chunk in torch.split(ids.to(self.device), self.chunk):
            new = chunk.shape[0]
            cache.begin(new)
            positions = torch.arange(cache.length, cache.length + new, device=self.device)
            self.together(self.stack.fill, self._embed(chunk[None]), positions[None], cache)
            cache.end(new)

    @torch.no_grad()
    def denoise(self, canvas: Tensor, cache: KVCache, soft: Tensor | None) -> Tensor:
        """One decoder pass. canvas: int64 [C]; soft: [C, hidden] of the step before, or None on the first.

        Returns float32 logits [C, V], soft-capped, not divided by a temperature. The cache is only read. Several
        canvases of one block share it: with canvas [B, C] and soft [B, C, hidden] the logits are [B, C, V], each
        canvas's as if it were alone.
        """
        batch = canvas.view(-1, canvas.shape[-1])
        softs = None if soft is None else soft.view(*batch.shape, -1)
        positions = torch.arange(cache.length, cache.length + batch.shape[1], device=self.device).expand_as(batch)

        def step() -> Tensor:
            hidden = self.run_decoder(batch, softs, positions, cache)
            return self.head(hidden.view(*canvas.shape, -1))

        return self.together(step)

    def together(self, work: Callable[..., T], *arguments: Any) -> T:
        """work(*arguments), on the model's crew if it has one. The crew knows no gradients."""
        team = crew() if self.crewed else None
        return work(*arguments) if team is None else team.run(lambda: work(*arguments))

    @contextmanager
    def uncrewed(self) -> Iterator[None]:
        """Without a crew for a while, so that each part runs once and by itself: for those who look inside."""
        crewed, self.crewed = self.crewed, False
        try:
            yield
        finally:
            self.crewed = crewed

    @torch.no_grad()
    def denoise_apart(self, canvases: Tensor, caches: Sequence[KVCache], softs: Tensor) -> Tensor:
        """One decoder pass over canvases of several texts, each over a cache of its own.

        canvases: int64 [B, C]; softs: [B, C, hidden], zeros on a first step. Returns float32 logits [B, C, V]: those of
        ``denoise`` up to rounding, which hangs on how many there are.
        """
        places = torch.arange(canvases.shape[1], device=self.device)
        positions = torch.stack([cache.length + places for cache in caches])
        return self.together(lambda: self.head(self.run_decoder(canvases, softs, positions, Apart(caches))))

    @torch.no_grad()
    def soft_embedding(self, logits: Tensor) -> Tensor:
        """softmax(logits) @ embedding * sqrt(hidden): [C, V] -> [C, hidden]. logits: already tempered."""
        return self.expected_embedding(logits.softmax(dim=-1))

    def expected_embedding(self, probabilities: Tensor) -> Tensor:
        """The mean embedding under each distribution, scaled as embeddings are: [..., V] -> [..., hidden]."""
        mean: Tensor = self.embed_tokens.mean(probabilities)
        return mean * self._embedding_scale

    def run_encoder(self, ids: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """Causal pass. ids, positions: int64 [B, T]. Returns [B, T, hidden], normed; the memory keeps K and V."""
        return self.stack(self._embed(ids), positions, memory, "encode")  # type: ignore[no-any-return]

    def run_decoder(self, canvas: Tensor, soft: Tensor | None, positions: Tensor, memory: Memory) -> Tensor:
        """Bidirectional pass over canvases. canvas, positions: int64 [B, C]; soft: [B, C, hidden] or None.
        Returns [B, C, hidden], normed.
        """
        embedded = self._embed(canvas)
        share = -(-canvas.shape[1] // current().size)
        parts = embedded.split(share, dim=1)
        softs = [None] * len(parts) if soft is None else soft.split(share, dim=1)
        mixed = current().map(lambda part: self.self_conditioning(*part), zip(parts, softs, strict=True))
        return self.stack(whole(mixed, dim=1), positions, memory, "denoise")  # type: ignore[no-any-return]

    def head(self, hidden: Tensor) -> Tensor:
        """Tied output head: [..., hidden] -> float32 logits [..., V], softly capped."""
        cap, embedding = self.config.logit_softcap, self.embed_tokens
        if hidden.device.type != "cpu" or torch.is_grad_enabled():
            return torch.tanh(embedding.scores(hidden).float() / cap) * cap
        logits = torch.empty(*hidden.shape[:-1], self.config.vocab_size)

        def tile(first: int) -> None:
            ids = slice(first, first + _TILE)
            _cap(logits[..., ids], embedding.scores(hidden, ids), cap)

        current().map(tile, range(0, self.config.vocab_size, _TILE))
        return logits

    def _embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embed_tokens(ids)
        return embedded * self._embedding_scale
