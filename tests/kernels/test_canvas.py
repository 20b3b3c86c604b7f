"""A step's decisions on the device: exactly those of ``sampling``, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgemma_cli.kernels.canvas import advance
from dgemma_cli.sampling import rules
from dgemma_cli.sampling.acceptance import EntropyBound
from dgemma_cli.sampling.stopping import Progress, SettledReply, StableAndConfident, Stopping

EOS = torch.tensor([1, 3])

# Any numbers; and few, whose sums often lie on one side or the other of the bounds, or on them.
NATS = st.floats(0, 12.5, width=32), st.sampled_from([0.0, 0.001, 0.004, 0.01, 0.02, 0.1, 1.0])
BOUNDS = st.one_of(st.just(1e30), st.floats(0, 4)), st.sampled_from([0.0, 0.005, 0.01, 0.02, 0.1, 0.5])


@st.composite
def cases(draw: st.DrawFn, few: bool) -> tuple[EntropyBound, Stopping, int, list[tuple[Tensor, Tensor]]]:
    """Policies, room, and the drafts and nats of some steps; in a step few positions change."""
    bound, length = BOUNDS[few], draw(st.integers(1, 9 if few else 40))
    settled = st.builds(SettledReply, st.integers(0, 2), bound, bound)
    stopping = draw(settled if few else st.one_of(settled, st.builds(StableAndConfident, st.integers(0, 3), bound)))
    ids = st.sampled_from([1, 3, 5, 5, 6])
    draft, steps = draw(st.lists(ids, min_size=length, max_size=length)), []
    for _ in range(draw(st.integers(1, 4))):
        for place in draw(st.lists(st.integers(0, length - 1), max_size=1)):
            draft[place] = draw(ids)
        steps.append((torch.tensor(draft), torch.tensor(draw(st.lists(NATS[few], min_size=length, max_size=length)))))
    acceptance = EntropyBound(draw(bound), draw(st.sampled_from([0, 0, 1, 2, 3, 12, 100])))
    return acceptance, stopping, draw(st.integers(1, length + 1)), steps


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


@pytest.mark.parametrize("few", [False, True])
def test_step_by_step(device: torch.device, few: bool) -> None:
    @settings(max_examples=160 if few else 50, deadline=None, derandomize=True)
    @given(cases(few))
    def check(case: tuple[EntropyBound, Stopping, int, list[tuple[Tensor, Tensor]]]) -> None:
        acceptance, stopping, room, steps = case
        length = len(steps[0][0])
        numbers = rules.settings(acceptance, stopping, room, length)
        found, beside = OnTheDevice(device, length, numbers), rules.Rules(torch.tensor(numbers), length, EOS.tolist())
        beside.begin()
        picked, noise = torch.arange(length) + 100, torch.arange(length) + 200
        drafts: list[Tensor] = []
        for draft, entropy in steps:
            accepted, stop = found.step(draft, entropy, picked, noise)
            assert torch.equal(accepted, acceptance.accept(entropy))
            assert torch.equal(accepted, beside.accept(entropy))
            assert torch.equal(found.canvas.cpu(), torch.where(accepted, picked, noise))
            assert bool(stop) == stopping.stop(Progress(draft, drafts, entropy, torch.isin(draft, EOS), room))
            assert bool(stop) == bool(beside.stop(draft, entropy))
            drafts.append(draft)

    check()


@pytest.mark.parametrize("length", [1, 16, 256])
def test_canvases_as_long_as_the_real_one(device: torch.device, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    stopping, acceptance = SettledReply(1, 0.005, 0.5), EntropyBound(0.1, 12)
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


def test_an_end_counts_once_it_is_settled(device: torch.device) -> None:
    """The rest is unsure: the canvas is finished if the EOS, itself not sure, was there a step ago."""
    stopping, draft, entropy = SettledReply(0, 0.005, 0.01), torch.tensor([5, 1, 5, 5]), torch.tensor([0, 0.012, 1, 1])
    found = OnTheDevice(device, 4, rules.settings(EntropyBound(0.1), stopping, 4, 4))
    assert not found.step(draft, entropy, draft, draft)[1]
    assert found.step(draft, entropy, draft, draft)[1]
