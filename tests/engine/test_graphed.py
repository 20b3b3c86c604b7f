"""The recorded loop writes what the plain loop writes, token by token."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import cast

import pytest
import tiny
import torch
from tape import Guard, Tape, Waited
from torch import Tensor

from dgemma_cli.engine.choice import choose
from dgemma_cli.engine.denoise import Canvas, Task, denoise
from dgemma_cli.engine.events import BlockCommitted, Denoised, Event, Finished, PromptEncoded
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.graphed import graphed
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls
from dgemma_cli.sampling.presets import PRESETS

PROMPT = [3, 5, 7]


def fuse(model: Model) -> FusedModel:
    return FusedModel(model, PlainOperations(), Tape(), chunk=16)


def assert_same(found: list[Event], expected: list[Event]) -> None:
    """But for times, and the last digits of entropies."""
    assert [type(event) for event in found] == [type(event) for event in expected]
    for mine, plain in zip(found, expected, strict=True):
        if isinstance(mine, Denoised) and isinstance(plain, Denoised):
            assert mine.entropy == pytest.approx(plain.entropy, abs=1e-3)
            mine = replace(mine, entropy=plain.entropy)
        elif isinstance(mine, Finished) and isinstance(plain, Finished):
            names = ("seconds", "prefill_seconds", "first_block_seconds")
            times = {name: getattr(plain.statistics, name) for name in names}
            mine = replace(mine, statistics=replace(mine.statistics, **times))
        elif isinstance(mine, PromptEncoded) and isinstance(plain, PromptEncoded):
            mine = replace(mine, seconds=plain.seconds)
        assert mine == plain


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny.random_model(eos_ids=frozenset({4}))


@pytest.fixture(scope="module")
def fused(model: Model) -> FusedModel:
    return fuse(model)


@pytest.mark.parametrize(("preset", "ahead"), [("reference", 0), ("quality", 1), ("balanced", 0), ("fast", 1)])
def test_every_event_is_that_of_the_plain_loop(model: Model, fused: FusedModel, preset: str, ahead: int) -> None:
    ends = set()
    for seed, most in ((0, 40), (1, 40), (2, 13)):
        options = Options(preset=preset, seed=seed, max_tokens=most, steps=6, entropy_bound=0.5, confidence=0.1)
        expected = list(generate(model, PROMPT, options))
        found = list(generate(fused, PROMPT, options, denoiser=lambda task: graphed(task, ahead)))
        assert_same(found, expected)
        ends |= {event.converged for event in found if isinstance(event, BlockCommitted)}
    assert True in ends  # canvases that stop by themselves; the others end at the cap
    assert False in ends or preset in ("balanced", "fast")


def test_one_recording_serves_settings_blocks_and_turns(model: Model, fused: FusedModel) -> None:
    fused = fuse(model)
    tape = fused.executor
    assert isinstance(tape, Tape)
    session, plain = Session(fused), Session(model)
    ids = PROMPT
    for turn, preset in enumerate(("reference", "fast", "quality")):
        options = Options(preset=preset, seed=turn, max_tokens=20, steps=4 + turn, entropy_bound=0.3 * turn + 0.1)
        found, expected = list(session.reply(ids, options)), list(plain.reply(ids, options))
        assert_same(found, expected)
        ids = [*ids, *(token for event in found if isinstance(event, BlockCommitted) for token in event.ids), 9, 2]
    assert tape.recordings == 3  # the two halves of a step, and the commit
    del session
    list(generate(fused, PROMPT, Options(max_tokens=8, seed=1)))
    assert tape.recordings == 3  # another conversation has the memory of the one before


@pytest.mark.parametrize("ahead", [0, 1])
def test_steps_that_nobody_wants(model: Model, ahead: int) -> None:
    """Launched before the stop was known: one for each canvas that stopped by itself, or none."""
    fused = fuse(model)
    tape = fused.executor
    assert isinstance(tape, Tape)
    options = Options(seed=0, max_tokens=40, steps=6, entropy_bound=0.5, confidence=0.1, drafts=False)
    events = list(generate(fused, PROMPT, options, denoiser=lambda task: graphed(task, ahead)))
    blocks = [event for event in events if isinstance(event, BlockCommitted)]
    looks = sum(block.steps for block in blocks)
    early = sum(block.converged and block.steps < 6 for block in blocks)
    assert early
    softenings = sum(min(block.steps + ahead, 5) for block in blocks)
    assert tape.launches == looks + ahead * early + softenings + len(blocks) - 1


@pytest.mark.parametrize("drafts", [True, False])
def test_a_block_does_not_wait_and_takes_no_memory(fused: FusedModel, drafts: bool) -> None:
    """From the start of a block to its end the host only writes to what is there and launches recordings."""
    tape = fused.executor
    assert isinstance(tape, Tape)
    guard = Guard(tape)

    def watched(task: Task) -> Generator[Denoised, None, Canvas]:
        steps = graphed(task)
        while True:
            try:
                with guard:
                    event = next(steps)
            except StopIteration as end:
                canvas: Canvas = end.value
                return canvas
            yield event

    options = Options(seed=0, max_tokens=20, steps=6, entropy_bound=0.5, confidence=0.1, drafts=drafts)
    expected = list(generate(fused, PROMPT, options))  # recorded
    assert_same(list(generate(fused, PROMPT, options, denoiser=watched)), expected)
    assert {"copy_", "fill_", "zero_"} <= guard.touched


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 1],
        lambda x: x.nonzero(),
        lambda x: bool((x > 1).all()),
        lambda x: torch.equal(x, x),
    ],
)
def test_the_tape_and_the_guard_see_what_waits(work: Callable[[Tensor], object]) -> None:
    tape, there = Tape(), torch.arange(4.0)

    def run() -> None:
        work(there)

    with pytest.raises(Waited):
        tape.record(run)
    with pytest.raises(Waited), Guard(tape):
        work(there)


def test_the_guard_sees_memory_taken_and_copies_to_the_host() -> None:
    tape, there = Tape(), torch.arange(4.0)
    here = tape.host((4,), torch.float32)
    with Guard(tape):
        there.copy_(here)
        tape.fetch([(there, here)])()
        bool(here[0])
    for work in (lambda: there + 1, lambda: here.copy_(there), lambda: there.clone()):
        with pytest.raises(Waited), Guard(tape):
            work()


def test_a_canvas_knows_nothing_of_the_one_before(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sure of the same text in every step of every block, it still asks twice in each."""
    fused = fuse(model)
    fused.defaults = replace(fused.defaults, eos_ids=frozenset())
    logits = 60.0 * torch.nn.functional.one_hot(torch.arange(8), 37) - 30.0
    monkeypatch.setattr(fused, "head", lambda hidden: logits + 0 * hidden[:, :1])
    events = list(generate(fused, PROMPT, Options(seed=0, max_tokens=24, preset="quality")))
    assert [event.steps for event in events if isinstance(event, BlockCommitted)] == [2, 2, 2]


def test_a_canvas_left_midway_is_waited_for(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the next one is told of: what the device was told may not have left the host's memory yet."""
    fused = fuse(model)
    waited: list[int] = []  # how many copies each wait is for

    def fetch(pairs: Sequence[tuple[Tensor, Tensor]], behind: bool = True) -> Callable[[], object]:
        done = Tape.fetch(cast(Tape, fused.executor), pairs, behind)
        return lambda: (waited.append(len(pairs)), done())

    monkeypatch.setattr(fused.executor, "fetch", fetch)
    options = Options(seed=0, max_tokens=8, steps=4, stability=100)
    session = Session(fused)
    list(session.reply(PROMPT, options))
    assert 0 not in waited
    events = session.reply([*PROMPT, 2], options)
    assert any(isinstance(event, Denoised) for event in events)  # the first of four
    del events
    waited.clear()
    list(session.reply([*PROMPT, 2, 4], options))
    assert waited[0] == 0
    assert waited.count(0) == 1


def test_what_it_does_not_do_is_told(model: Model, fused: FusedModel) -> None:
    assert choose(fused, Options()) == (graphed, "recorded (a tape)")
    assert choose(fused, Options(held={0: 5})) == (denoise, "plain: text is held")
    assert choose(fused, Options(best_of=2)) == (denoise, "plain: several canvases side by side")
    assert choose(fused, Options(best_of=1, held={})) == choose(fused, Options())
    several = replace(PRESETS["quality"], best_of=2)
    assert choose(fused, Options(preset=several)) == choose(fused, Options(best_of=2))
    repairing = "recorded (a tape); plain where --repair writes again"
    assert choose(fused, Options(repair=True)) == (graphed, repairing)
    assert choose(fused, Options(repair=True, best_of=2)) == choose(fused, Options(best_of=2))
    for options in (Options(), Options(repair=True), Options(held={0: 5}), Options(best_of=2)):
        assert choose(model, options) == (denoise, "plain")
    called = FusedModel(model, PlainOperations(), Calls(), chunk=16)
    assert choose(called, Options()) == (graphed, "launched one by one")
    for options in (Options(seed=1, max_tokens=12, held={1: 5}), Options(seed=1, max_tokens=12, best_of=2)):
        assert_same(list(generate(fused, PROMPT, options)), list(generate(model, PROMPT, options)))


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(repair=True),
        Options(repair=True, held={1: 5}),
        Options(held={1: 5}),
        Options(best_of=2),
        Options(best_of=2, repair=True),
    ],
)
def test_the_loop_that_is_told_is_the_one_that_runs(
    model: Model, fused: FusedModel, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The passes of each loop are counted: a recorded step decodes a canvas in a recording, a plain one by itself."""
    tape = fused.executor
    assert isinstance(tape, Tape)
    plain = 0

    def counted(*arguments: object) -> Tensor:
        nonlocal plain
        plain += 1
        return FusedModel.denoise(fused, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fused, "denoise", counted)
    options = replace(options, seed=0, max_tokens=16, steps=3, stability=100, spacing=0)  # nothing settles by itself
    before = tape.launches
    events = list(generate(fused, PROMPT, options))
    recorded = tape.launches - before
    blocks = [event for event in events if isinstance(event, BlockCommitted)]
    commits, steps = len(blocks) - 1, sum(block.steps for block in blocks)
    told = choose(fused, options)[1]
    assert told.startswith("recorded") == (recorded > commits)
    assert (told == "recorded (a tape)") == (plain == 0)
    if options.repair and not options.best_of:
        assert any(block.repaired for block in blocks)
    if told.startswith("plain"):
        assert (recorded, plain) == (commits, steps)
    assert_same(events, list(generate(model, PROMPT, options)))


def test_self_conditioning_is_over_the_whole_vocabulary(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both loops: where all ids are as likely, it is the mean of all embeddings, not of some likeliest ones."""
    recorded, softs = fuse(model), []
    uniform = torch.zeros(8, model.config.vocab_size)
    monkeypatch.setattr(recorded, "head", lambda hidden: uniform + 0 * hidden[:, :1])
    monkeypatch.setattr(model, "head", lambda hidden: uniform.expand(*hidden.shape[:-1], -1).clone())
    decoder = model.run_decoder
    monkeypatch.setattr(
        model, "run_decoder", lambda ids, soft, *rest: (softs.append(soft), decoder(ids, soft, *rest))[1]
    )
    options = Options(seed=0, max_tokens=8, steps=2, preset="reference")
    cache = recorded.new_cache()
    list(generate(recorded, PROMPT, options, cache=cache))
    list(generate(model, PROMPT, options))
    expected = (model.embed_tokens.weight.mean(dim=0) * model.config.hidden_size**0.5).expand(8, -1)
    torch.testing.assert_close(cache.buffers.programs["denoise"]._soft, expected)
    assert softs[0] is None
    torch.testing.assert_close(softs[1][0], expected)
