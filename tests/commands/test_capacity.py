"""How much a server does at a time, on machines made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dgemma_cli.commands.capacity import MOST_CANVASES, Capacity, capacity, work_of
from dgemma_cli.commands.memory_report import Report, Subject, judge
from dgemma_cli.commands.serve import AT_REST, REPLIES
from dgemma_cli.errors import OutOfMemory
from dgemma_cli.machine import Gpu, Machine
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK

GB = 10**9
NAME = "diffusiongemma:nvfp4"
ASKED = [(None, None), (3, None), (None, GB), (2, 0)]


def report(gigabytes: float, replies: int | None = None, at_rest: int | None = None, device: str = "auto") -> Report:
    gpu = Gpu(0, "Fake", 99 * GB, int(gigabytes * GB), (8, 9), "580", False, ())
    machine = Machine((gpu,), 8, 99 * GB, int(gigabytes * GB), "2", "13")
    subject = Subject.elsewhere(NAME, NETWORK, CHECKPOINTS[NAME].scheme)
    flags = ("--parallel", "--cache")
    return judge(subject, machine, 8192, "off", device, work_of(replies, at_rest), flags)


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_it_fits_and_no_more_would(asked: tuple[int | None, int | None], device: str) -> None:
    """From the least that fits up: what was asked for is kept, the rest only grows, and is as much as there is room."""
    work = work_of(*asked)
    least = report(99, *asked, device).needs(work).total / GB
    before = Capacity(0, 0, 0, 0)
    for more in (0, 0.4, 1, 1.7, 2.5, 3.5, 4.5, 7, 12, 60):
        found = report(least + more + 1e-6, *asked, device)
        assert found.problem is None
        can = capacity(found, *asked)
        assert can.replies == asked[0] if asked[0] is not None else before.replies <= can.replies <= REPLIES
        assert can.at_rest == asked[1] if asked[1] is not None else 0 <= can.at_rest <= AT_REST
        done = replace(work, replies=can.replies, at_rest=can.at_rest, canvases=can.canvases)
        assert found.spare(done) >= 0
        if can.replies < REPLIES and asked[0] is None:
            assert found.spare(replace(work, replies=can.replies + 1)) < 0
        if can.at_rest < AT_REST and asked[1] is None:
            assert found.spare(replace(done, canvases=1)) < 2
        if can.canvases < MOST_CANVASES:
            assert found.spare(replace(done, canvases=can.canvases + 1)) < 0
        assert can.lowered == (
            (asked[0] is None and can.replies < REPLIES) or (asked[1] is None and can.at_rest < AT_REST)
        )
        assert (can.reserved > 0) == (asked[1] is None)
        before = can
    assert (can.lowered, can.canvases) == (False, MOST_CANVASES)
    if asked == (None, None):
        assert (can.replies, can.at_rest) == (REPLIES, AT_REST)


def test_by_card() -> None:
    found = {size: str(capacity(report(size), None, None)) for size in (20.8, 22.8, 25.0, 33.0)}
    rest = "for caches of recent prompts"
    assert found == {
        20.8: f"one reply at a time and 528.0 MB {rest}",
        22.8: f"3 replies at a time and 495.8 MB {rest}",
        25.0: f"4 replies at a time and 1.7 GB {rest}",
        33.0: f"4 replies at a time and 2.0 GB {rest}",
    }


@pytest.mark.parametrize(
    ("asked", "hints"),
    [
        ((3, 0), ["fewer replies at a time: --parallel 2"]),
        ((1, 3 * GB), ["less for caches: --cache 1"]),
        ((2, GB), ["fewer replies at a time: --parallel 1", "less for caches: --cache 0.5"]),
        ((4, 3 * GB), ["both at the least: --parallel 1 --cache 0"]),
    ],
)
def test_a_refusal_tells_what_to_ask_for(asked: tuple[int, int], hints: list[str]) -> None:
    problem = report(22, *asked).problem
    assert isinstance(problem, OutOfMemory)
    assert ("replies at a time," in problem.message, "for caches" in problem.message) == (asked[0] > 1, asked[1] > 0)
    told = [line.removeprefix("It fits with ") for line in problem.hint.splitlines() if "fits with" in line]
    assert [line for line in told if "fit" not in line] == hints


def test_a_small_model_asks_nobody() -> None:
    assert capacity(None, None, None) == Capacity(REPLIES, AT_REST, 0, MOST_CANVASES)
    assert capacity(None, 7, 0) == Capacity(7, 0, 0, MOST_CANVASES)
