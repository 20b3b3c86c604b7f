"""What a denoising step needs to know of the logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dgemma_cli.kernels.crew import current


class Prediction(NamedTuple):
    """probabilities: softmax(logits / T), float32 [C, V]; entropy: of each, nats [C]; draft: argmax ids [C]."""

    probabilities: Tensor
    entropy: Tensor
    draft: Tensor


_TILE = 8  # rows that a CPU's second-level cache holds, at the vocabularies in use
_CHUNK = 256  # ids


def predict(logits: Tensor, temperature: float | Tensor) -> Prediction:
    """logits: float32 [C, V], whose memory the probabilities take."""
    entropy = logits.new_empty(logits.shape[0])
    draft = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
    tile = _TILE if logits.device.type == "cpu" else max(1, logits.shape[0])

    def some(first: int) -> None:
        rows = slice(first, first + tile)
        own = logits[rows]
        best = _argmax(own)[:, None]
        below = own.sub_(own.gather(-1, best)).div_(temperature)
        p = torch.softmax(below, dim=-1)
        # log p = below + log p[best], since below is 0 at the best id: no pass over the logarithms, no cancellation.
        entropy[rows] = -p.gather(-1, best)[:, 0].log() - torch.linalg.vecdot(p, below)
        draft[rows] = best[:, 0]
        own.copy_(p)

    current().map(some, range(0, logits.shape[0], tile))
    return Prediction(logits, entropy, draft)


def _argmax(rows: Tensor) -> Tensor:
    """The first largest of each row, [n, V] -> int64 [n]. torch looks for values far faster than for places."""
    whole = rows.shape[1] // _CHUNK * _CHUNK
    if rows.device.type != "cpu" or not whole:
        return rows.argmax(dim=-1)
    chunks = rows[:, :whole].unflatten(1, (-1, _CHUNK))
    peaks = chunks.amax(dim=-1)
    chunk = peaks.argmax(dim=-1)
    nearer = chunks.gather(1, chunk[:, None, None].expand(-1, -1, _CHUNK))[:, 0]
    place: Tensor = nearer.argmax(dim=-1) + chunk * _CHUNK
    if whole == rows.shape[1]:
        return place
    peak, last = rows[:, whole:].max(dim=-1)
    return torch.where(peak > peaks.amax(dim=-1), last + whole, place)
