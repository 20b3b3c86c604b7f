from __future__ import annotations

import pytest
import torch

from dgemma_cli.sampling.statistics import predict


@pytest.mark.parametrize("count", [1, 8, 21])
@pytest.mark.parametrize("temperature", [0.4, 0.8])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 9.0])
def test_as_float64_says(count: int, temperature: float, sharpness: float) -> None:
    """Row counts that the tiles divide and do not; flat rows to sure ones."""
    logits = torch.randn(count, 777, generator=torch.Generator().manual_seed(count)) * sharpness
    exact = torch.distributions.Categorical(logits=logits.double() / temperature)
    found = predict(logits.clone(), temperature)
    assert torch.equal(found.draft, logits.argmax(-1))
    torch.testing.assert_close(found.entropy.double(), exact.entropy(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.probabilities.double(), exact.probs, rtol=2e-5, atol=1e-9)
