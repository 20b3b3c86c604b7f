"""A crew does what one thread does, and nobody is left waiting when something goes wrong."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from dgemma_cli.kernels.crew import Crew, current


@pytest.fixture(scope="module")
def crew() -> Crew:
    usual = torch.get_num_threads()
    made = Crew(3, 1)
    assert torch.get_num_threads() == usual  # the calling thread keeps its own number
    return made


def test_results_in_order_by_all_members(crew: Crew) -> None:
    meeting = threading.Barrier(3)  # passed only if three members are at work at once

    def work(number: int) -> tuple[int, int, bool, int]:
        if number < 3:
            meeting.wait(timeout=20)
        return number, torch.get_num_threads(), torch.is_grad_enabled(), current().size

    assert crew.run(lambda: (current().size, current().map(work, range(20)))) == (
        3,
        [(number, 1, False, 1) for number in range(20)],
    )
    assert current().size == 1  # outside of it


def test_maps_within_maps_and_empty_ones(crew: Crew) -> None:
    def work(row: int) -> list[int]:
        return current().map(lambda column: 10 * row + column, range(2))

    assert crew.run(lambda: current().map(work, range(4))) == [[0, 1], [10, 11], [20, 21], [30, 31]]
    assert crew.run(lambda: current().map(work, [])) == []


@pytest.mark.parametrize("bad", [0, 1, 5])
def test_an_error_ends_the_others_and_is_raised(crew: Crew, bad: int) -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == bad:
            raise ZeroDivisionError(number)
        time.sleep(0.01)

    with pytest.raises(ZeroDivisionError):
        crew.run(lambda: current().map(work, range(1000)))
    assert len(begun) < 1000
    assert crew.run(lambda: current().map(str, range(3))) == ["0", "1", "2"]  # and it serves on


def test_an_interrupt_of_the_caller_ends_the_work(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does: raised in the waiting thread, while the members are at work."""
    maps = 0

    def work() -> None:
        nonlocal maps
        while True:
            current().map(time.sleep, [0.001] * 3)
            maps += 1

    class Impatient:
        def __init__(self, done: object) -> None:
            self.done = done
            self.first = True

        def wait(self) -> None:
            if self.first:
                self.first = False
                raise KeyboardInterrupt
            self.done.wait()  # type: ignore[attr-defined]

    leader = crew._members[0]
    begin = leader.begin
    monkeypatch.setattr(leader, "begin", lambda task: Impatient(begin(task)))
    with pytest.raises(KeyboardInterrupt):
        crew.run(work)
    monkeypatch.undo()
    ended = maps
    time.sleep(0.05)
    assert maps == ended
    assert crew.run(lambda: current().map(str, range(2))) == ["0", "1"]
