"""Tokens by expert: every entry once, in order, in tiles of one expert."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgemma_cli.kernels.grouping import group_by_expert


def random_ids(tokens: int, top_k: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return torch.stack([torch.randperm(count, generator=generator)[:top_k] for _ in range(tokens)])


IDS = {
    "some": random_ids(37, 3, 11),
    "one entry": torch.tensor([[2]]),
    "all to one": torch.full((21, 2), 4),
    "the last alone": torch.full((5, 1), 10),
    "exactly full tiles": torch.arange(32)[:, None] % 4,
    "more than a chunk": random_ids(1100, 2, 11),
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("tile", [4, 16])
def test_groups(device: torch.device, ids: Tensor, dtype: torch.dtype, tile: int) -> None:
    count = 11
    groups = group_by_expert(ids.to(device, dtype), count, tile)
    assert groups.top_k == ids.shape[1]
    flat = ids.flatten()
    assert torch.equal(groups.order.cpu().long(), flat.argsort(stable=True))
    used = groups.tiles.cpu()[:, groups.tiles.cpu()[0] >= 0]
    assert used.shape[1] == sum(-(-int(n) // tile) for n in torch.bincount(flat, minlength=count))
    assert torch.equal(used, groups.tiles.cpu()[:, : used.shape[1]]), "tiles that are not needed come last"
    covered = []
    for expert, begin, end in used.T.tolist():
        assert 0 < end - begin <= tile
        covered += range(begin, end)
        assert (flat[groups.order.cpu().long()[begin:end]] == expert).all()
    assert covered == list(range(flat.numel()))
