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


def predict(logits: Tensor, temperature: float) -> Prediction:
    """logits: float32 [C, V], overwritten: their memory holds the log probabilities afterwards."""
    draft = logits.argmax(dim=-1)
    tempered = logits.div_(temperature)
    log_probabilities = torch.log_softmax(tempered, dim=-1)
    probabilities = log_probabilities.exp()
    entropy = -torch.linalg.vecdot(probabilities, log_probabilities)
    return Prediction(probabilities, entropy, draft)
