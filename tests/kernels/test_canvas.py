"""A step's decisions on the device: exactly those of ``sampling``, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgemma_cli.kernels.canvas import advance
from dgemma_cli.sampling import rules
from dgemma_cli.sampling.acceptance import EntropyBound
from dgemma_cli.sampling.stopping import Progress, SettledReply, StableAndConfident, Stopping

EOS = torch.tensor([1, 3])

# Sums of few of these lie on the bounds below, and next to them.
nats = st.one_of(st.sampled_from([0.0, 1e-9, 0.005, 0.02, 0.05, 0.1, 0.10000001, 12.5]), st.floats(0, 12.5, width=32))
bounds = st.one_of(st.sampled_from([0.0, 0.005, 0.1, 0.15, 1e30]), st.floats(0, 4))
rule = st.one_of(
    st.builds(StableAndConfident, st.integers(0, 3), bounds),
    st.builds(SettledReply, st.integers(0, 3), bounds, bounds),
)


class OnTheDevice:
    """A canvas's state over its steps, in buffers with something behind them that must stay."""

    def __init__(self, device: torch.device, length: int, numbers: list[int]) -> None:
        self.device = device
        self.numbers, self.eos = torch.tensor(numbers, device=device), EOS.to(device)
        self.behind = torch.full((3, length + 1), -9, device=device)
        self.previous, self.unchanged, self.canvas = self.behind[:, :length].unbind()
        self.previous.fill_(-1)

    def step(self, draft: Tensor, entropy: Tensor, picked: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        told = torch.full((2, len(draft) + 1), 9, dtype=torch.uint8, device=self.device)  # neither True nor False
        out = told[0, :-1].view(torch.bool), told[1, :1].view(torch.bool)
        inputs = (each.to(self.device) for each in (draft, entropy, picked, noise))
        advance(self.numbers, self.eos, self.previous, self.unchanged, *inputs, self.canvas, out)
        assert (self.behind[:, -1] == -9).all() and (told[0, -1] == 9).all() and (told[1, 1:] == 9).all()
        assert (told[0, :-1] <= 1).all() and told[1, 0] <= 1
        return out[0].cpu(), out[1].cpu()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), rule, bounds, st.integers(1, 40), st.integers(1, 50))
def test_step_by_step(
    device: torch.device, data: st.DataObject, stopping: Stopping, bound: float, length: int, room: int
) -> None:
    acceptance = EntropyBound(bound)
    numbers = rules.settings(acceptance, stopping, room, length)
    found = OnTheDevice(device, length, numbers)
    beside = rules.Rules(torch.tensor(numbers), length, EOS.tolist())
    beside.begin()
    drafts: list[Tensor] = []
    draft = data.draw(st.lists(st.integers(0, 6), min_size=length, max_size=length))
    for _ in range(data.draw(st.integers(1, 4))):
        for place in data.draw(st.lists(st.integers(0, length - 1), max_size=2)):  # few places change at a time
            draft[place] = data.draw(st.integers(0, 6))
        entropy = torch.tensor(data.draw(st.lists(nats, min_size=length, max_size=length)))
        ids = torch.tensor(draft)
        picked, noise = torch.arange(length) + 100, torch.arange(length) + 200
        accepted, stop = found.step(ids, entropy, picked, noise)
        assert torch.equal(accepted, acceptance.accept(entropy))
        assert torch.equal(accepted, beside.accept(entropy))
        assert torch.equal(found.canvas.cpu(), torch.where(accepted, picked, noise))
        assert torch.equal(found.previous.cpu(), ids)
        is_eos = torch.isin(ids, EOS)
        assert bool(stop) == stopping.stop(Progress(ids, drafts, entropy, is_eos, room))
        assert bool(stop) == bool(beside.stop(ids, entropy))
        drafts.append(ids)


@pytest.mark.parametrize("length", [1, 16, 256])
def test_canvases_as_long_as_the_real_one(device: torch.device, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    stopping, acceptance = SettledReply(1, 0.005, 0.5), EntropyBound(0.1)
    found = OnTheDevice(device, length, rules.settings(acceptance, stopping, length, length))
    drafts: list[Tensor] = []
    draft = torch.randint(50, (length,), generator=generator)
    stopped = []
    for step in range(6):
        draft = torch.where(torch.rand(length, generator=generator) < 0.3 / (step + 1) ** 3, draft + 1, draft)
        entropy = torch.rand(length, generator=generator) * 10.0 ** (-step)
        accepted, stop = found.step(draft, entropy, draft, -draft)
        assert torch.equal(accepted, acceptance.accept(entropy))
        expected = stopping.stop(Progress(draft, list(drafts), entropy, torch.isin(draft, EOS), length))
        assert bool(stop) == expected
        drafts.append(draft)
        stopped.append(expected)
    assert stopped[-1] and (length == 1 or not stopped[0])
