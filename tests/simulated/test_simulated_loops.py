"""Both loops on a simulated GPU: what they write is what the CPU writes, token by token, by a GPU's rules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import tiny
import torch
from sim_machine import Machine, Refused, Stream
from sim_order import Race
from sync_guard import watched

from dgemma_cli.engine.choice import choose
from dgemma_cli.engine.events import BlockCommitted, Denoised, Event, PromptEncoded
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.graphed import graphed
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.engine.shelf import Shelf
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model import cache as growing
from dgemma_cli.model import static_cache
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Graphs
from dgemma_cli.server.worker import Job, Worker

PROMPT = [3, 5, 7]
EOS = frozenset({4})


def asked(**own: Any) -> Options:
    return Options(**{"seed": 3, "max_tokens": 11, "steps": 3, "entropy_bound": 0.5, "confidence": 0.1, **own})


def plain(device: str) -> Model:
    return tiny.random_model(eos_ids=EOS).to(device)


def recorded(device: str) -> FusedModel:
    """On graphs, with torch's operations in the place of Triton's."""
    model = plain(device)
    return FusedModel(model, PlainOperations(), Graphs(model.device), chunk=16)


def told(events: Sequence[Event]) -> list[object]:
    """But for times, and entropies."""
    return [
        (event.canvas, event.accepted, event.changed) if isinstance(event, Denoised) else event
        for event in events
        if isinstance(event, Denoised | BlockCommitted)
    ]


def reply(events: Sequence[Event]) -> list[int]:
    return [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]


OPTIONS = {
    "usual": asked(),
    "no drafts": asked(drafts=False, preset="quality"),
    "best of": asked(best_of=2, preset="fast"),
    "held": asked(held={1: 5, 10: 7}, max_tokens=16),
    "repair": asked(repair=True, steps=2, stability=100),
    "repair held": asked(repair=True, steps=2, held={1: 5, 10: 7}, stability=100),
}


@pytest.fixture(scope="module")
def expected() -> dict[str, list[object]]:
    """What the CPU tells."""
    model = plain("cpu")
    return {name: told(list(generate(model, PROMPT, options))) for name, options in OPTIONS.items()}


@pytest.mark.parametrize("make", [plain, recorded])
def test_every_way_to_write(gpus: Machine, expected: dict[str, list[object]], make: Callable[[str], Model]) -> None:
    """On a GPU that is not the current one."""
    model = make("cuda:1")
    assert model.device == torch.device("cuda", 1)
    for name, options in OPTIONS.items():
        assert told(list(generate(model, PROMPT, options))) == expected[name], name
    loop, words = choose(model, asked())
    assert (loop is graphed) == words.startswith("recorded (CUDA graphs)") == isinstance(model, FusedModel)


@pytest.mark.parametrize("make", [plain, recorded])
def test_a_conversation_whose_buffers_grow(
    gpus: Machine, make: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whose cache is cut, forked, and left in the middle of a canvas."""
    for module in (growing, static_cache):
        monkeypatch.setattr(module, "_GROWTH", 16)
    monkeypatch.setattr(static_cache, "_FIRST", 32)
    sessions = Session(make("cuda:1")), Session(plain("cpu"))
    ids, cached = PROMPT, []
    for turn, more in enumerate((20, 45, 0)):
        both = []
        for session in sessions:
            left = session.reply(ids, asked(seed=9, steps=2))
            assert any(isinstance(event, Denoised) for event in left)
            left.close()
            both.append(list(session.reply(ids, asked(seed=turn, steps=2))))
        assert told(both[0]) == told(both[1])
        cached.append(next(event.cached for event in both[0] if isinstance(event, PromptEncoded)))
        ids = [*ids, *reply(both[0]), *range(6, 6 + more % 30), *[8] * (more // 30 * 30)] if more else ids[:40]
    assert max(cached) > 30
    both = [list(session.fork().reply([*ids, 9], asked(seed=9, steps=2))) for session in sessions]
    assert told(both[0]) == told(both[1])


@pytest.mark.parametrize("make", [plain, recorded])
def test_replies_that_take_turns_in_another_thread(gpus: Machine, make: Callable[[str], Model]) -> None:
    """As a server's do: its worker's own current GPU is the first one. Those with a seed are what they are alone."""
    model = make("cuda:1")
    shelf = Shelf(model, 10**7, parallel=4)
    worker = Worker(4, 8, shelf.forget)
    heard: list[list[object]] = []
    finished: list[threading.Event] = []

    def job(ids: list[int], options: Options, conversation: str | None) -> Job:
        mine: list[object] = []
        done = threading.Event()

        def put(event: object) -> None:
            mine.append(event)
            worker.taken(job)
            if not isinstance(event, Event):
                done.set()

        job = Job(lambda: shelf.reply(ids, options, conversation), put, "")
        heard.append(mine)
        finished.append(done)
        return job

    jobs = [job([3, 5, 7 + n], asked(seed=None, max_tokens=8), None) for n in range(2)]
    jobs += [job(PROMPT, asked(), "own"), job(PROMPT, asked(seed=4), None)]
    worker.start()
    for each in jobs:
        worker.submit(each)
    for each in finished:
        assert each.wait(100)
    worker.end()
    assert [mine[-1] for mine in heard] == [None] * 4
    expected = [told(list(generate(plain("cpu"), PROMPT, asked(seed=seed)))) for seed in (3, 4)]
    assert [told(mine) for mine in heard[2:]] == expected  # type: ignore[arg-type]
    if shelf._sharing is not None:
        assert shelf._sharing.passes < sum(isinstance(event, Denoised) for mine in heard[:2] for event in mine)
    assert shelf.nbytes > 0


@pytest.mark.parametrize("drafts", [True, False])
def test_a_block_does_not_wait(gpus: Machine, drafts: bool) -> None:
    model = recorded("cuda")
    options = asked(drafts=drafts)
    first = told(list(generate(model, PROMPT, options)))  # recorded
    assert told(list(generate(model, PROMPT, options, denoiser=watched))) == first


def _not_pinned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Graphs, "host", lambda _, shape, dtype: torch.zeros(*shape, dtype=dtype))


def _not_waited_for(patch: pytest.MonkeyPatch) -> None:
    fetch = Graphs.fetch

    def unwaited(graphs: Graphs, *rest: Any, **more: Any) -> Callable[[], None]:
        fetch(graphs, *rest, **more)
        return lambda: None

    patch.setattr(Graphs, "fetch", unwaited)


def _reads_a_number(model: FusedModel, hidden: torch.Tensor) -> torch.Tensor:
    return Model.head(model, hidden * hidden.sum().item())


def _nothing(_: object, __: object) -> None:
    pass


MISTAKES: dict[str, tuple[Callable[[pytest.MonkeyPatch], object], str]] = {
    "streams do not wait for one another": (
        lambda patch: patch.setattr(Stream, "wait_stream", _nothing),
        "does not wait",
    ),
    "memory is not pinned": (_not_pinned, "makes the host wait"),
    "a pass is recorded that reads a number back": (
        lambda patch: patch.setattr(FusedModel, "head", _reads_a_number),
        "_local_scalar_dense in a recording",
    ),
    "a tensor is made on the host": (
        lambda patch: patch.setattr(static_cache.Buffers, "zero", torch.zeros(1, dtype=torch.int32)),
        "and on the CPU",
    ),
    "nobody waits for the copies": (
        _not_waited_for,
        "does not wait",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_seen(planted: Machine, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    plant, words = MISTAKES[mistake]
    plant(monkeypatch)

    def run() -> Iterator[Event]:
        model = recorded("cuda")
        yield from generate(model, PROMPT, asked())
        yield from generate(model, PROMPT, asked(), denoiser=watched)

    with pytest.raises((Refused, Race), match=words):
        list(run())
