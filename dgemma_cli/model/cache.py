"""The KV cache: what the encoder leaves behind for the canvases to read."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_cli.model.config import LayerConfig, ModelConfig

_GROWTH = 1024  # positions a full layer's buffer grows by at the least, so that short chats copy rarely


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
    grouped = q.shape[1] != k.shape[1]
    if grouped and mask is None and not causal:
        # Without a mask the queries of a group are just more queries of one head: no keys are repeated.
        folded = q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])
        return F.scaled_dot_product_attention(folded, k, v, scale=1.0).reshape(q.shape)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=1.0, enable_gqa=grouped)


class _LayerCache:
    """Keys and values of one layer, [B, kv_heads, capacity, d] each.

    A sliding layer keeps its last window - 1 positions; a full layer keeps all and grows by half at the least.
    Behind the kept positions there is always room for a canvas, which is written there for the time of a step:
    so the canvas attends to one contiguous stretch and nothing is copied.
    """

    def __init__(self, layer: LayerConfig, window: int | None, canvas: int, batch: int, like: Tensor) -> None:
        self.window = window
        self.canvas = canvas
        self.kept = 0
        capacity = canvas + (window - 1 if window is not None else _GROWTH)
        self.k = like.new_empty(batch, layer.num_kv_heads, capacity, layer.head_dim)
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
        keys = torch.cat((self.k[:, :, : self.kept], k), dim=2)
        values = torch.cat((self.v[:, :, : self.kept], v), dim=2)
        self.kept = min(self.window - 1, keys.shape[2])
        first = keys.shape[2] - self.kept
        self.k[:, :, : self.kept] = keys[:, :, first:]
        self.v[:, :, : self.kept] = values[:, :, first:]
        return keys, values

    def with_canvas(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept with a canvas behind it; the canvas is forgotten at the next call."""
        end = self.kept + k.shape[2]
        self.k[:, :, self.kept : end] = k
        self.v[:, :, self.kept : end] = v
        return self.k[:, :, :end], self.v[:, :, :end]

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

    like: a tensor of the dtype and device that the keys shall have.
    """

    def __init__(self, config: ModelConfig, like: Tensor) -> None:
        self.length = 0
        self._window = config.sliding_window
        self._layers = [
            _LayerCache(layer, config.sliding_window if layer.sliding else None, config.canvas_length, 1, like)
            for layer in config.layers
        ]
        self._masks: dict[bool, Tensor | None] = {}
        self._causal = False

    def begin(self, new: int) -> None:
        """Before an encoder pass over ``new`` tokens: the masks are made once for all layers."""
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

    def encode(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        own = self._layers[layer]
        keys, values = own.append(k, v)
        return attend(q, keys, values, self._masks[own.window is not None], self._causal)

    def denoise(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._layers[layer].with_canvas(k, v)
        return attend(q, keys, values)
