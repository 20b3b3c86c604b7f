"""Token embeddings, which are the output head as well."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_cli.kernels.crew import current


class Embedding(nn.Embedding):
    """A row for each token of the vocabulary. A packed one is in ``kernels.embedding``."""

    def scores(self, hidden: Tensor, ids: slice = slice(None)) -> Tensor:
        """hidden @ W.T, or that for some rows of W: [..., hidden] -> [..., V]."""
        return F.linear(hidden, self.weight[ids])

    def mean(self, probabilities: Tensor) -> Tensor:
        """The mean row under each distribution: [..., V] -> [..., hidden], of the embedding's dtype."""
        team, weight = current(), self.weight
        if team.size == 1:
            return probabilities.to(weight.dtype) @ weight
        rows = probabilities.flatten(0, -2)
        narrow = torch.cat(team.map(lambda some: some.to(weight.dtype), rows.chunk(4 * team.size)))
        means = team.map(lambda columns: narrow @ columns, weight.chunk(team.size, dim=1))
        return torch.cat(means, dim=1).view(*probabilities.shape[:-1], -1)
