"""What a denoising step needs to know of the logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Prediction(NamedTuple):
    """probabilities: softmax(logits / T), float32 [C, V]; entropy: of each, nats [C]; draft: argmax ids [C]."""

    probabilities: Tensor
    entropy: Tensor
    draft: Tensor


_TILE = 8  # rows that a CPU's second-level cache holds, at the vocabularies in use


def predict(logits: Tensor, temperature: float | Tensor) -> Prediction:
    """logits: float32 [C, V], overwritten: their memory holds (logits - row maximum) / T afterwards."""
    probabilities = torch.empty_like(logits)
    entropy = logits.new_empty(logits.shape[0])
    draft = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
    tile = _TILE if logits.device.type == "cpu" else max(1, logits.shape[0])
    for start in range(0, logits.shape[0], tile):
        rows = slice(start, start + tile)
        peak, best = logits[rows].max(dim=-1, keepdim=True)
        below = logits[rows].sub_(peak).div_(temperature)
        p = torch.softmax(below, dim=-1, out=probabilities[rows])
        # log p = below + log p[best], since below is 0 at the best id: no pass over the logarithms, no cancellation.
        entropy[rows] = -p.gather(-1, best)[:, 0].log() - torch.linalg.vecdot(p, below)
        draft[rows] = best[:, 0]
    return Prediction(probabilities, entropy, draft)
