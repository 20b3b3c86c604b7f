"""When Ctrl-C is met, and when it is raised."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from dgemma_cli.terminal.cancel import Cancellation, Cancelled


@pytest.fixture
def cancellation() -> Iterator[Cancellation]:
    made = Cancellation()
    with made.installed():
        yield made


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def engine(presses: dict[int, int]) -> Iterator[int]:
    """Five events; presses: how often Ctrl-C comes while each is computed."""
    for event in range(5):
        for _ in range(presses.get(event, 0)):
            ctrl_c()
        yield event


def test_outside_of_a_reply_it_is_raised(cancellation: Cancellation) -> None:
    with pytest.raises(Cancelled):
        ctrl_c()


def test_within_a_reply_it_is_met_after_the_event(cancellation: Cancellation) -> None:
    assert list(cancellation.watch(engine({}))) == [0, 1, 2, 3, 4]
    assert not cancellation.requested
    assert list(cancellation.watch(engine({2: 1}))) == [0, 1, 2]
    assert cancellation.requested
    assert list(cancellation.watch(engine({}))) == [0, 1, 2, 3, 4]


def test_a_second_one_is_raised_in_the_engine(cancellation: Cancellation) -> None:
    seen = []
    with pytest.raises(Cancelled):
        for event in cancellation.watch(engine({2: 2})):
            seen.append(event)
    assert seen == [0, 1]


def test_it_is_raised_in_the_engine_where_nothing_can_be_waited_for(cancellation: Cancellation) -> None:
    cancellation.hasty = True
    with pytest.raises(Cancelled):
        list(cancellation.watch(engine({0: 1})))


def test_it_never_comes_while_an_event_is_shown(cancellation: Cancellation) -> None:
    cancellation.hasty = True
    seen = []
    for event in cancellation.watch(engine({})):
        ctrl_c()
        ctrl_c()
        seen.append(event)
    assert seen == [0]


def test_a_shielded_block_is_done_whole(cancellation: Cancellation) -> None:
    done = []
    with pytest.raises(Cancelled), cancellation.shielded():
        ctrl_c()
        done.append(True)
    assert done == [True]
    with cancellation.shielded():
        pass


def test_the_handler_before_comes_back_and_an_ignored_signal_stays_ignored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Cancellation().installed():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Cancellation().installed():
            ctrl_c()
    finally:
        signal.signal(signal.SIGINT, before)
