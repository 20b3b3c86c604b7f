"""The rules on a device decide as the policies on the host do."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgemma_cli.sampling import rules
from dgemma_cli.sampling.acceptance import EntropyBound
from dgemma_cli.sampling.stopping import Progress, SettledReply, StableAndConfident

C, EOS = 6, [1, 3]
NATS = st.sampled_from([0.0, 1e-9, 0.001, 0.01, 0.1, 0.5, 2.0])
ACCEPTANCES = st.builds(EntropyBound, st.sampled_from([0.0, 0.01, 0.11, 0.6, 9.0]), st.integers(0, 7))
POLICIES = st.one_of(
    st.builds(StableAndConfident, st.integers(0, 3), st.sampled_from([0.001, 0.02, 0.1, 1.0])),
    st.builds(SettledReply, st.integers(0, 3), st.sampled_from([0.001, 0.02, 1.0]), st.sampled_from([0.0, 0.01, 0.5])),
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), stopping=POLICIES, acceptance=ACCEPTANCES, room=st.integers(1, 9))
def test_the_same_decisions(
    data: st.DataObject, stopping: StableAndConfident | SettledReply, acceptance: EntropyBound, room: int
) -> None:
    numbers = torch.zeros(rules.SETTINGS, dtype=torch.int64)
    device = rules.Rules(numbers, C, EOS)
    for _ in range(2):  # a second canvas remembers nothing of the first
        numbers.copy_(torch.tensor(rules.settings(acceptance, stopping, room, C)))
        device.begin()
        before: list[torch.Tensor] = []
        for _ in range(data.draw(st.integers(1, 5))):
            draft = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=C, max_size=C)))
            if before and data.draw(st.booleans()):
                draft = before[-1].clone()
            entropy = torch.tensor(data.draw(st.lists(NATS, min_size=C, max_size=C)))
            is_eos = torch.isin(draft, torch.tensor(EOS))
            expected = stopping.stop(Progress(draft, before, entropy, is_eos, room))
            assert bool(device.stop(draft, entropy)) is expected
            assert torch.equal(device.accept(entropy), acceptance.accept(entropy))
            before.append(draft)


def test_a_rule_that_is_not_known_is_refused() -> None:
    class Never:
        def stop(self, progress: Progress) -> bool:
            return False

    try:
        rules.settings(EntropyBound(0.1), Never(), 1, C)
    except TypeError as error:
        assert "Never" in str(error)
    else:
        raise AssertionError("taken")
