"""Drawing by the inverse of the cumulated distribution, against one cumulated in float64."""

from __future__ import annotations

import pytest
import torch

from dgemma_cli.sampling.draws import pick_by_inverse_cdf


def rows(vocab: int, seed: int, kept: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(64, vocab, generator=generator).mul(3).exp()
    weights[torch.rand(64, vocab, generator=generator) > kept] = 0
    weights[:, seed % vocab] = 1
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("vocab", [1, 97, 256, 1000, 32_768])
@pytest.mark.parametrize("kept", [0.02, 1.0])
def test_the_id_whose_stretch_holds_the_number(vocab: int, kept: float) -> None:
    for seed in range(4):
        p = rows(vocab, seed, kept)
        uniform = torch.rand(64, 1, generator=torch.Generator().manual_seed(seed))
        uniform[:2, 0] = torch.tensor([0.0, 1 - 2**-24])
        picked = pick_by_inverse_cdf(p, uniform)[:, None]
        assert (p.gather(1, picked) > 0).all()
        end = p.double().cumsum(-1)
        number = uniform.double() * end[:, -1:]
        assert (number < end.gather(1, picked) + 1e-5).all()
        assert (number > (end - p).gather(1, picked) - 1e-5).all()


@pytest.mark.parametrize("vocab", [3, 300, 4096])
def test_a_sure_row_always_gives_its_id(vocab: int) -> None:
    ids = torch.arange(vocab)
    p = torch.eye(vocab)
    for number in (0.0, 1e-7, 0.5, 1 - 2**-24):
        assert torch.equal(pick_by_inverse_cdf(p, torch.full((vocab, 1), number)), ids)
