"""Token embeddings, which are the output head as well."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """A row for each token of the vocabulary. A packed one is in ``kernels.embedding``."""

    def scores(self, hidden: Tensor) -> Tensor:
        """hidden @ W.T: [..., hidden] -> [..., V]."""
        return F.linear(hidden, self.weight)

    def mean(self, probabilities: Tensor) -> Tensor:
        """The mean row under each distribution: [..., V] -> [..., hidden], of the embedding's dtype."""
        return probabilities.to(self.weight.dtype) @ self.weight
