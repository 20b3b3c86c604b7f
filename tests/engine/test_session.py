"""Turns on one cache: what is encoded is what is new, and the logits are those of a fresh cache."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch

from dgemma_cli.engine.events import BlockCommitted, Denoised, Event, PromptEncoded
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.errors import UsageError
from dgemma_cli.model import cache as cache_module
from dgemma_cli.model.model import Model

OPTIONS = Options(max_tokens=20, seed=3)
SYSTEM, USER, TURN = [2, 3, 4], [5, 6, 7, 8], [9]


def kept(events: list[Event]) -> list[int]:
    return [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]


def prompt(events: list[Event]) -> PromptEncoded:
    assert isinstance(events[0], PromptEncoded)
    return events[0]


class Counting(Model):
    """Counts the tokens it encodes."""

    tokens = 0

    def encode(self, ids: torch.Tensor, cache: object) -> None:
        self.tokens += len(ids)
        super().encode(ids, cache)  # type: ignore[arg-type]


@pytest.fixture
def model() -> Counting:
    torch.manual_seed(0)
    made = Counting(tiny.config(context=1024)).requires_grad_(False).eval()
    made.defaults = tiny.random_model().defaults
    return made


def same_as_fresh(session: Session, model: Model, ids: list[int]) -> list[Event]:
    """The reply of ``session``, which is that of a fresh cache."""
    events = list(session.reply(ids, OPTIONS))
    assert kept(events) == kept(list(generate(model, ids, OPTIONS)))
    return events


def test_every_turn_encodes_the_new_tokens_only(model: Counting) -> None:
    session = Session(model)
    ids = [*SYSTEM, *USER]
    held = 0
    for _ in range(20):
        model.tokens = 0
        events = list(session.reply(ids, OPTIONS))
        assert (prompt(events).tokens, prompt(events).cached) == (len(ids), held)
        # The reply's three blocks are 8 + 8 + 4 tokens; the last is not encoded before the next turn.
        assert model.tokens == len(ids) - held + 16
        held = len(ids) + 16
        assert session.encoded == [*ids, *kept(events)[:16]]
        ids = [*ids, *kept(events), *TURN, *USER]


def test_the_same_prompt_again_encodes_its_last_token(model: Counting) -> None:
    session = Session(model)
    first = same_as_fresh(session, model, [*SYSTEM, *USER])
    again = same_as_fresh(session, model, [*SYSTEM, *USER])
    assert prompt(again).cached == 6
    assert kept(first) == kept(again)


def test_what_changed_is_cut_off(model: Counting) -> None:
    session = Session(model)
    same_as_fresh(session, model, [*SYSTEM, *USER])
    assert prompt(same_as_fresh(session, model, [*SYSTEM, 30, *USER])).cached == 3  # another question
    assert prompt(same_as_fresh(session, model, [2, 31, 4, *USER])).cached == 1  # another system prompt
    assert prompt(same_as_fresh(session, model, [2])).cached == 0  # shorter than what is held


@pytest.mark.parametrize("stop", range(12))
def test_a_reply_left_at_any_event_leaves_a_good_cache(model: Counting, stop: int) -> None:
    session = Session(model)
    ids = [*SYSTEM, *USER]
    list(itertools.islice(session.reply(ids, OPTIONS), stop))
    assert session.encoded[: len(ids)] == (ids if stop else [])
    same_as_fresh(session, model, [*ids, *TURN, *USER])


def test_an_interrupted_pass_costs_a_fresh_encode_and_nothing_else(
    model: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(model)
    ids = [*SYSTEM, *USER]
    list(session.reply(ids, OPTIONS))
    attend = cache_module.attend
    calls = itertools.count()

    def interrupt(*arguments: object) -> torch.Tensor:
        if next(calls) == 0:  # the last layer has none to interrupt
            raise KeyboardInterrupt
        return attend(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "attend", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(session.reply([*ids, *TURN], OPTIONS))
    assert prompt(same_as_fresh(session, model, [*ids, *TURN])).cached == 0


def test_a_cut_too_far_back_starts_anew_and_tells(model: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SLACK", 10)
    session = Session(model)
    long = list(range(2, 36)) * 3
    same_as_fresh(session, model, [*SYSTEM, *long])
    assert prompt(same_as_fresh(session, model, [*SYSTEM, *USER])).cached == 0


def test_a_prompt_that_does_not_fit_leaves_the_session_as_it_is(model: Counting) -> None:
    session = Session(model)
    ids = [*SYSTEM, *USER]
    list(session.reply(ids, OPTIONS))
    for bad in ([], list(range(30)) * 40):
        with pytest.raises(UsageError):
            list(session.reply(bad, OPTIONS))
        same_as_fresh(session, model, [*ids, *TURN])


def test_forgetting_costs_a_fresh_encode(model: Counting) -> None:
    session = Session(model)
    same_as_fresh(session, model, [*SYSTEM, *USER])
    session.forget()
    assert session.encoded == []
    assert prompt(same_as_fresh(session, model, [*SYSTEM, *USER])).cached == 0


def test_steps_come_when_they_are_asked_for(model: Counting) -> None:
    for drafts in (True, False):
        events = list(Session(model).reply(USER, Options(max_tokens=8, seed=1, drafts=drafts)))
        assert any(isinstance(event, Denoised) for event in events) is drafts
