"""The router's choice against ``kernels.reference.route``."""

from __future__ import annotations

import pytest
import torch
from kernel_inputs import Inputs

from dgemma_cli.kernels import reference, router


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 1, 1), (7, 13, 3), (5, 128, 8), (4, 6, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])  # nearly even, usual, nearly one alone
def test_route(device: torch.device, dtype: torch.dtype, scale: float, tokens: int, experts: int, top_k: int) -> None:
    make = Inputs(device, dtype)
    # Distinct in bfloat16 too, so that the choice is not free.
    scores = torch.stack([torch.randperm(experts, generator=make.generator) for _ in range(tokens)])
    scores = ((scores - experts / 2) * scale / 8).to(device, dtype)
    per_expert = make.random(experts).abs()
    weights, chosen = reference.route(scores, top_k, per_expert)
    out = Inputs(device).poisoned(tokens, top_k), torch.full((tokens, top_k), -7, device=device, dtype=torch.int32)
    found = router.route(scores, top_k, per_expert, out)
    assert found[0] is out[0] and found[1] is out[1]
    assert torch.equal(found[1].long(), chosen)
    torch.testing.assert_close(found[0], weights, rtol=2e-6, atol=1e-30)


def test_of_equal_scores_the_lower_ids(device: torch.device) -> None:
    scores = torch.tensor([[2.0, 5.0, 2.0, 5.0, 2.0]], device=device)
    weights, chosen = router.route(scores, 3, torch.ones(5, device=device))
    assert chosen.tolist() == [[1, 3, 0]]
    assert weights.sum().item() == pytest.approx(1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in the interpreter
def test_scores_that_are_no_numbers_give_ids_within_range(device: torch.device) -> None:
    scores = torch.full((1, 5), torch.nan, device=device)
    _, chosen = router.route(scores, 2, torch.ones(5, device=device))
    assert ((chosen >= 0) & (chosen < 5)).all()
