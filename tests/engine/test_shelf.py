"""Caches at rest: which is taken up, what it costs, and that nobody's text hangs on anybody else's."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch
from tape import Tape

from dgemma_cli.engine.events import BlockCommitted, Denoised, Event, PromptEncoded
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.engine.shelf import Shelf
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.static_cache import StaticCache

FREE, SEEDED = Options(max_tokens=16), Options(max_tokens=16, seed=3)
PROMPT = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
PLENTY = 1 << 40


@pytest.fixture(params=["plain", "recorded"])
def model(request: pytest.FixtureRequest) -> Model:
    """Encodes a prompt eight tokens at a time."""
    made = tiny.random_model(context=512)
    made.chunk = 8
    return made if request.param == "plain" else FusedModel(made, PlainOperations(), Tape(), chunk=8)


def cached(events: list[Event]) -> int:
    assert isinstance(events[0], PromptEncoded)
    return events[0].cached


def text(events: list[Event]) -> list[int]:
    return [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]


def numbers(events: list[Event]) -> list[tuple[float, ...]]:
    """The entropies of every step, bit for bit."""
    return [event.entropy for event in events if isinstance(event, Denoised)]


def test_a_conversation_without_a_name_goes_on_in_its_cache(model: Model) -> None:
    shelf = Shelf(model, PLENTY)
    first = list(shelf.reply(PROMPT, FREE))
    longer = [*PROMPT, *text(first), 5, 6]
    assert cached(list(shelf.reply(longer, FREE))) == len(PROMPT) + 8  # the last block was never encoded
    assert len(shelf) == 1


def test_what_begins_alike_gets_a_copy_and_the_other_keeps_its_own(model: Model) -> None:
    shelf = Shelf(model, PLENTY)
    first = list(shelf.reply(PROMPT, FREE))
    assert cached(list(shelf.reply([*PROMPT[:6], 30, 31], FREE))) == 6
    assert len(shelf) == 2
    assert cached(list(shelf.reply([*PROMPT, *text(first), 5], FREE))) == len(PROMPT) + 8


def test_a_named_conversation_is_one_session_whatever_comes_between(model: Model) -> None:
    shelf, alone = Shelf(model, PLENTY), Session(model)
    ids = PROMPT
    for _ in range(3):
        list(shelf.reply([*ids, 20], FREE))
        served, own = list(shelf.reply(ids, SEEDED, "a")), list(alone.reply(ids, SEEDED))
        assert served[0].cached == own[0].cached  # type: ignore[union-attr]
        assert numbers(served) == numbers(own)
        ids = [*ids, *text(served), 5, 6]


def test_with_a_seed_the_numbers_are_those_of_a_fresh_cache(model: Model) -> None:
    prompt = [*PROMPT, *PROMPT]  # 22 tokens, of which two chunks are whole
    shelf = Shelf(model, PLENTY)
    list(shelf.reply(prompt[:13], FREE))
    list(shelf.reply([*prompt[:15], 30], FREE))  # goes on where no chunk ends: only its first is as a fresh cache's
    for ids, kept in ((prompt, 8), ([*prompt, 20, 21, 22], 16), ([*prompt[:12], 33], 8), ([30, 31], 0)):
        served = list(shelf.reply(ids, SEEDED))
        fresh = list(generate(model, ids, SEEDED))
        assert (cached(served), text(served)) == (kept, text(fresh))
        if not isinstance(model, FusedModel):  # whose plain operations round otherwise in buffers of another size
            assert numbers(served) == numbers(fresh)
    assert cached(list(Shelf(model, 0).reply(prompt, SEEDED))) == 0


def test_the_least_recently_used_is_let_go(model: Model) -> None:
    one = Session(model)
    list(one.reply(PROMPT, FREE))
    shelf = Shelf(model, 2 * one.nbytes)
    for start in (2, 12, 22):
        list(shelf.reply([start, *PROMPT], FREE))
    assert (len(shelf), shelf.nbytes) == (2, 2 * one.nbytes)
    assert cached(list(shelf.reply([12, *PROMPT, 5], FREE))) > 0
    assert cached(list(shelf.reply([2, *PROMPT, 5], FREE))) == 0
    shelf.forget()
    assert shelf.nbytes == 0


def test_what_replies_leave_of_their_memory_serves_caches_at_rest(model: Model) -> None:
    one = Session(model)
    list(one.reply(PROMPT, FREE))
    shelf = Shelf(model, 0, parallel=2, reserved=one.nbytes)
    for start in (2, 12, 22):
        list(shelf.reply([start, *PROMPT], FREE))
        # The buffers of one that was let go may wait for the next cache, which takes as much.
        assert shelf.nbytes + model.spare_nbytes <= 2 * one.nbytes
    assert len(shelf) == (2 if not isinstance(model, FusedModel) else 1)
    kept = len(shelf)
    at_work = shelf.reply([30, *PROMPT], FREE)
    next(at_work)
    assert len(shelf) <= min(kept, 1)
    other = shelf.reply([31, *PROMPT], FREE)
    next(other)
    assert len(shelf) == 0
    for going in (at_work, other):
        list(going)
    assert len(shelf) >= 1


def test_recordings_count(model: Model) -> None:
    """What a cache keeps for its recordings, above all the probabilities of a canvas."""
    session = Session(model)
    list(session.reply(PROMPT, FREE))
    assert session._cache is not None
    probabilities = 4 * model.config.canvas_length * model.config.vocab_size
    if isinstance(session._cache, StaticCache):
        buffers = session._cache.buffers
        own = sum(each.nbytes for each in (*buffers.k, *buffers.v))
        assert probabilities < session.nbytes - own < 1.2 * probabilities + 100_000


def test_a_cache_in_use_is_nobody_elses(model: Model) -> None:
    shelf = Shelf(model, PLENTY)
    ids = [*PROMPT, *text(list(shelf.reply(PROMPT, FREE)))]
    one, other = shelf.reply([*ids, 5], SEEDED, "a"), shelf.reply([*ids, 5], SEEDED, "a")
    mixed: tuple[list[Event], list[Event]] = ([], [])
    for pair in itertools.zip_longest(one, other):
        for events, event in zip(mixed, pair, strict=True):
            if event is not None:
                events.append(event)
    assert text(mixed[0]) == text(mixed[1]) == text(list(generate(model, [*ids, 5], SEEDED)))
    assert numbers(mixed[0]) == numbers(mixed[1])


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_reply_that_is_left_leaves_a_good_cache(model: Model, stop: int) -> None:
    shelf = Shelf(model, PLENTY)
    left = shelf.reply(PROMPT, SEEDED, "a")
    list(itertools.islice(left, stop))
    left.close()  # type: ignore[attr-defined]
    assert len(shelf) == 1
    again = list(shelf.reply(PROMPT, SEEDED, "a"))
    assert cached(again) == len(PROMPT) - 1
    torch.testing.assert_close(numbers(again)[0], numbers(list(generate(model, PROMPT, SEEDED)))[0], rtol=1e-4, atol=0)


def test_replies_without_a_seed_share_their_passes_and_one_with_a_seed_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny.random_model(context=512)
    sizes: list[int] = []
    run = Model.denoise_apart

    def counted(self: Model, canvases: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(canvases))
        return run(self, canvases, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "denoise_apart", counted)
    shelf = Shelf(model, PLENTY, parallel=4)
    replies = [shelf.reply(PROMPT, options) for options in (FREE, FREE, SEEDED)]
    told: list[list[Event]] = [[], [], []]
    for events in itertools.zip_longest(*replies):
        for own, event in zip(told, events, strict=True):
            own.extend([] if event is None else [event])
    assert max(sizes) == 2
    assert numbers(told[2]) == numbers(list(generate(model, PROMPT, SEEDED)))
