"""The KV cache: what the encoder leaves behind for the canvases to read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_cli.kernels.crew import current, whole
from dgemma_cli.model.config import LayerConfig, ModelConfig

_GROWTH = 1024  # positions a full layer's buffer grows by at the least, so that short chats copy rarely
_QUERIES = 256  # masked at once on CUDA
SLACK = 1024  # for a conversation: positions kept beyond the window, so that a cut this far back is still exact


class Memory(Protocol):
    """What attention needs of a cache. Queries are [B, heads, T, d], keys and values [B, kv_heads, T, d]."""

    def encode(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention over what is kept and the new text, which is kept too: [B, heads, T, d]."""
        ...

    def denoise(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of a canvas over what is kept and the whole canvas; nothing is kept: [B, heads, C, d]."""
        ...


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Attention with scale 1 (DiffusionGemma has no 1/sqrt(d)) and grouped key heads: [B, heads, T, d].

    mask: bool [T, S], True where a query may look.
    """
    team, kv_heads, length = current(), k.shape[1], q.shape[2]
    group = q.shape[1] // kv_heads
    if group > 1 and mask is None and not causal:
        # Without a mask the queries of a group are just more queries of one head: no keys are repeated.
        q, group = q.reshape(q.shape[0], kv_heads, -1, q.shape[-1]), 1
    if group > 1 and mask is not None and q.device.type == "cuda":
        return masked_in_blocks(q, k, v, mask)
    share = -(-kv_heads // team.size)

    def some(own: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.scaled_dot_product_attention(*own, attn_mask=mask, is_causal=causal, scale=1.0, enable_gqa=group > 1)

    parts = zip(q.split(share * group, dim=1), k.split(share, dim=1), v.split(share, dim=1), strict=True)
    found = whole(team.map(some, parts), dim=1)
    return found.reshape(found.shape[0], -1, length, found.shape[-1])


def masked_in_blocks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """``attend`` with a mask and grouped heads, some queries at a time: torch's CUDA kernels for this would repeat the
    keys for every head, in float32, and hold all scores at once.
    """
    batch, heads, _, dim = q.shape
    groups = heads // k.shape[1]
    found = []
    for queries, rows in zip(q.split(_QUERIES, dim=2), mask.split(_QUERIES), strict=True):
        folded = queries.reshape(batch, k.shape[1], groups * len(rows), dim)
        attended = F.scaled_dot_product_attention(folded, k, v, attn_mask=rows.repeat(groups, 1), scale=1.0)
        found.append(attended.view(batch, heads, len(rows), dim))
    return torch.cat(found, dim=2)


class Apart:
    """The Memory of canvases that read caches of their own: row n of a batch reads the nth."""

    def __init__(self, caches: Sequence[KVCache]) -> None:
        self._caches = caches

    def encode(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise TypeError("texts are encoded one at a time")

    def denoise(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = zip(self._caches, q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([cache.denoise(layer, *row) for cache, *row in rows])


class _LayerCache:
    """Keys and values of one layer, [B, kv_heads, capacity, d] each.

    A sliding layer keeps its last window - 1 + slack positions, of which the last window - 1 are looked at; a full
    layer keeps all and grows by half at the least.
    Behind the kept positions there is always room for a canvas, which is written there for the time of a step:
    so the canvas attends to one contiguous stretch and nothing is copied.
    """

    def __init__(self, layer: LayerConfig, window: int | None, slack: int, canvas: int, like: Tensor) -> None:
        self.window = window
        self.canvas = canvas
        self.kept = 0
        self.reach = 0 if window is None else window - 1 + slack  # positions a sliding layer keeps
        capacity = canvas + (_GROWTH if window is None else self.reach)
        self.k = like.new_empty(1, layer.num_kv_heads, capacity, layer.head_dim)
        self.v = torch.empty_like(self.k)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new keys and values; returns those that the new positions may look at, the new ones last."""
        new = k.shape[2]
        if self.window is None:
            self._reserve(self.kept + new)
            end = self.kept + new
            self.k[:, :, self.kept : end] = k
            self.v[:, :, self.kept : end] = v
            self.kept = end
            return self.k[:, :, :end], self.v[:, :, :end]
        first = self._first_seen()
        keys = torch.cat((self.k[:, :, first : self.kept], k), dim=2)
        values = torch.cat((self.v[:, :, first : self.kept], v), dim=2)
        old = min(self.kept, max(0, self.reach - new))  # of the positions kept so far, those that stay
        start, self.kept = self.kept - old, min(self.reach, old + new)
        for buffer, added in ((self.k, k), (self.v, v)):
            if start:
                buffer[:, :, :old] = buffer[:, :, start : start + old].clone()
            buffer[:, :, old : self.kept] = added[:, :, new - (self.kept - old) :]
        return keys, values

    def with_canvas(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept with a canvas behind it; the canvas is forgotten at the next call."""
        end = self.kept + k.shape[2]
        self.k[:, :, self.kept : end] = k
        self.v[:, :, self.kept : end] = v
        first = self._first_seen()
        return self.k[:, :, first:end], self.v[:, :, first:end]

    def copy(self) -> _LayerCache:
        """The same keys and values in buffers of their own."""
        twin = copy.copy(self)
        twin.k, twin.v = self.k.clone(), self.v.clone()
        return twin

    def _first_seen(self) -> int:
        """The first of the kept positions that what comes next may look at."""
        return 0 if self.window is None else max(0, self.kept - (self.window - 1))

    def _reserve(self, positions: int) -> None:
        capacity = self.k.shape[2]
        if positions + self.canvas <= capacity:
            return
        capacity = max(positions + self.canvas, capacity + max(_GROWTH, capacity // 2))
        for name in ("k", "v"):
            old: Tensor = getattr(self, name)
            grown = old.new_empty(old.shape[0], old.shape[1], capacity, old.shape[3])
            grown[:, :, : self.kept] = old[:, :, : self.kept]
            setattr(self, name, grown)


class KVCache:
    """Cache of one conversation (batch 1). ``length`` is the number of tokens encoded so far.

    like: a tensor of the dtype and device that the keys shall have. slack: how far back a ``cut`` is sure to be exact.
    """

    def __init__(self, config: ModelConfig, like: Tensor, slack: int = 0) -> None:
        self.length = 0
        self._window = config.sliding_window
        self._layers = [
            _LayerCache(layer, config.sliding_window if layer.sliding else None, slack, config.canvas_length, like)
            for layer in config.layers
        ]
        self._masks: dict[bool, Tensor | None] = {}
        self._causal = False
        self._open = False  # a pass has begun and not ended

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(layer.k.nbytes + layer.v.nbytes for layer in self._layers)

    def copy(self) -> KVCache:
        """The same text, in buffers of its own."""
        twin = copy.copy(self)
        twin._layers = [layer.copy() for layer in self._layers]
        return twin

    def can_cut(self, length: int) -> bool:
        """Whether a ``cut`` to ``length`` would be exact.

        It is not if a sliding layer no longer holds the window before the cut (it lies more than the slack back), or
        if an interrupted pass left layers of different lengths.
        """
        dropped = self.length - length
        if length < 0 or dropped < 0:
            raise ValueError(f"a cache of {self.length} tokens cannot be cut to {length}")
        window = min(length, self._window - 1)
        return not self._open and all(not layer.window or layer.kept - dropped >= window for layer in self._layers)

    def cut(self, length: int) -> bool:
        """Forget all but the first ``length`` tokens, as if the others had never been encoded.

        False, and the cache is not to be used any more, where that cannot be done (``can_cut``).
        """
        if not self.can_cut(length):
            return False
        for layer in self._layers:
            layer.kept -= self.length - length
        self.length = length
        return True

    def begin(self, new: int) -> None:
        """Before an encoder pass over ``new`` tokens: the masks are made once for all layers."""
        self._open = True
        device = self._layers[0].k.device
        # With nothing kept and all within the window, plain causal attention says it all.
        self._causal = self.length == 0 and new <= self._window
        self._masks = {}
        if self._causal:
            self._masks = {True: None, False: None}
            return
        query = torch.arange(self.length, self.length + new, device=device)[:, None]
        key = torch.arange(self.length + new, device=device)[None]
        causal = key <= query
        first = self.length - min(self.length, self._window - 1)
        self._masks[False] = causal
        self._masks[True] = (causal & (key > query - self._window))[:, first:]

    def end(self, new: int) -> None:
        """After an encoder pass over ``new`` tokens."""
        self.length += new
        self._open = False

    def keep(self, layer: int, k: Tensor, v: Tensor) -> None:
        """As ``encode`` without its attention."""
        self._layers[layer].append(k, v)

    def encode(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        own = self._layers[layer]
        keys, values = own.append(k, v)
        return attend(q, keys, values, self._masks[own.window is not None], self._causal)

    def denoise(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Canvases [B, …] of one block: each in turn is written behind the text they share, so no key is copied."""
        own = self._layers[layer]
        canvases = zip(q.split(1), k.split(1), v.split(1), strict=True)
        attended = [attend(query, *own.with_canvas(keys, values)) for query, keys, values in canvases]
        return attended[0] if len(attended) == 1 else torch.cat(attended)
