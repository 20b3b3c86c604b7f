"""The sampler's looks at the logits against ``sampling.statistics`` and ``sampling.draws``."""

from __future__ import annotations

import pytest
import torch
from kernel_inputs import Inputs
from torch import Tensor

from dgemma_cli.kernels.operations import Sampled
from dgemma_cli.kernels.sampler import sample
from dgemma_cli.sampling.draws import pick_by_inverse_cdf
from dgemma_cli.sampling.statistics import predict

CAP = 30.0


def capped(scores: Tensor, cap: float | None) -> Tensor:
    return scores.float() if cap is None else torch.tanh(scores.float() / cap) * cap


def poisoned(device: torch.device, dtype: torch.dtype, rows: int, vocab: int) -> Sampled:
    make = Inputs(device)
    ids = torch.full((2, rows), -7, dtype=torch.int64, device=device)
    return Sampled(ids[0], make.poisoned(rows), ids[1], make.poisoned(rows, vocab).to(dtype))


def number(value: float, device: torch.device) -> Tensor:
    return torch.tensor([value], dtype=torch.float32, device=device)


def rows_of_all_kinds(device: torch.device, dtype: torch.dtype, rows: int, vocab: int) -> Tensor:
    """From flat rows to such as put all of their mass, within float32, on one id."""
    make = Inputs(device, torch.float32)
    sharpness = torch.logspace(-1, 2, rows, device=device)[:, None]
    return (make.random(rows, vocab) * sharpness).to(dtype)


sizes = pytest.mark.parametrize(("vocab", "tile"), [(1, 16), (64, 64), (777, 128), (1000, 512), (130, 128)])


@sizes
@pytest.mark.parametrize("temperature", [0.4, 0.8])
@pytest.mark.parametrize(("dtype", "cap"), [(torch.float32, None), (torch.float32, CAP), (torch.bfloat16, CAP)])
def test_as_the_functions_of_sampling_say(
    device: torch.device, dtype: torch.dtype, cap: float | None, temperature: float, vocab: int, tile: int
) -> None:
    count = 7
    scores = rows_of_all_kinds(device, dtype, count, vocab)
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(1)).to(device)
    out = poisoned(device, dtype, count, vocab)
    found = sample(scores, cap, number(temperature, device), uniform, out, tile)
    assert all(a is b for a, b in zip(found, out, strict=True))

    logits = capped(scores, cap)
    expected = predict(logits.clone(), temperature)
    # Logits that tanh brings together differ by their rounding, and then either may be the draft.
    here, there = (logits.gather(1, ids[:, None]) for ids in (found.draft, expected.draft))
    torch.testing.assert_close(here, there, rtol=0, atol=4e-6 if cap else 0)
    if dtype == torch.bfloat16 or cap is None:
        assert torch.equal(found.draft[:6], expected.draft[:6])
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=5e-5, atol=5e-6)
    near = {"rtol": 1e-4, "atol": 1e-9} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-9}
    torch.testing.assert_close(found.probabilities, expected.probabilities.to(dtype), **near)
    close_draws(found.picked, expected.probabilities, uniform)


def close_draws(picked: Tensor, probabilities: Tensor, uniform: Tensor) -> None:
    """The same ids as on the CPU, but where the number lies within rounding of a boundary between the two."""
    expected = pick_by_inverse_cdf(probabilities, uniform[:, None])
    ends = probabilities.double().cumsum(-1)
    for row in (picked != expected).nonzero()[:, 0].tolist():
        low, high = sorted((int(picked[row]), int(expected[row])))
        boundary = ends[row, low:high] / ends[row, -1]
        assert (boundary - uniform[row].double()).abs().max() < 2e-6, (row, low, high)


@pytest.mark.parametrize("vocab", [5, 40])
def test_numbers_on_both_sides_of_every_boundary(device: torch.device, vocab: int) -> None:
    """A row for each boundary of one distribution, the number just under it and just over it."""
    logits = rows_of_all_kinds(device, torch.float32, 4, vocab)[1]
    ends = (logits.double() / 0.7).softmax(-1).cumsum(-1)
    ids = torch.arange(vocab, device=device)
    margin = 2e-6
    wide = (ends.diff(prepend=ends.new_zeros(1)) > 2 * margin) & (ends < 1 - margin)  # on both sides the id is certain
    scores = logits.expand(vocab, -1).contiguous()
    for side, expected in ((-margin, ids), (margin, ids + 1)):
        uniform = (ends + side).clamp(0, 1 - 2**-24).float()
        found = sample(scores, None, number(0.7, device), uniform, tile=16)
        certain = wide & (wide.roll(-1) | (side < 0))
        assert certain.sum() > vocab // 3
        assert torch.equal(found.picked[certain], expected[certain])


def test_only_ids_with_mass_are_picked(device: torch.device) -> None:
    """Islands of mass among ids that underflow to nothing, and the numbers at the ends of their range."""
    vocab, count = 300, 12
    generator = torch.Generator().manual_seed(3)
    alive = torch.rand(count, vocab, generator=generator) < 0.02
    alive[torch.arange(count), torch.randint(vocab, (count,), generator=generator)] = True
    scores = torch.where(alive, torch.rand(count, vocab, generator=generator), -400.0).to(device)
    for value in (0.0, 1e-7, 0.5, 1 - 2**-24):
        uniform = torch.full((count,), value, device=device)
        found = sample(scores, None, number(0.5, device), uniform, tile=128)
        assert alive.to(device).gather(1, found.picked[:, None]).all()
        assert (found.probabilities[~alive.to(device)] == 0).all()
        close_draws(found.picked, predict(scores.clone(), 0.5).probabilities, uniform)
    assert torch.equal(
        sample(scores, None, number(0.5, device), torch.zeros(count, device=device), tile=64).picked.cpu(),
        alive.int().argmax(-1),
    )


@pytest.mark.parametrize("places", [(3, 4), (10, 100), (0, 129), (64, 128)])  # within a tile and across
def test_of_equal_logits_the_lowest_id(device: torch.device, places: tuple[int, int]) -> None:
    scores = torch.zeros(1, 130, device=device, dtype=torch.bfloat16)
    scores[0, list(places)] = 7.0
    found = sample(scores, CAP, number(0.8, device), torch.zeros(1, device=device), tile=64)
    assert found.draft.item() == places[0]


def test_scores_far_beyond_the_cap(device: torch.device) -> None:
    scores = torch.tensor([[3e4, -3e4, 0.0]], device=device)
    found = sample(scores, CAP, number(1.0, device), torch.zeros(1, device=device), tile=16)
    expected = predict(capped(scores, CAP), 1.0)
    assert found.draft.item() == 0
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-4, atol=1e-7)
