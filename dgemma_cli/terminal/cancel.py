"""Ctrl-C within a chat: it cancels what goes on, never the chat."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Cancelled(KeyboardInterrupt):
    """The user cancelled what went on."""


class Cancellation:
    """What Ctrl-C does while a chat runs.

    Outside of a reply it raises Cancelled, if need be when a ``shielded`` block has ended. Within one it is a
    request, met at the next event, so that the cache and the screen stay whole; it raises at once only in the engine,
    and there only while nothing can be lost by it (``hasty``) or when it comes a second time.
    """

    def __init__(self) -> None:
        self.requested = False
        self.hasty = False
        self._replying = False
        self._in_engine = False
        self._shielded = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take SIGINT, unless it is ignored."""
        before = signal.getsignal(signal.SIGINT)
        if before is signal.SIG_IGN:
            yield
            return
        signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Do the block whole: Ctrl-C within it is raised after it."""
        self.requested, self._shielded = False, True
        try:
            yield
        finally:
            self._shielded = False
        if self.requested:
            raise Cancelled

    def watch(self, events: Iterator[T]) -> Iterator[T]:
        """``events`` until the user cancels; then ``requested`` is True. May raise Cancelled."""
        self.requested, self._replying = False, True
        try:
            while not self.requested:
                self._in_engine = True
                try:
                    event = next(events)
                except StopIteration:
                    return
                finally:
                    self._in_engine = False
                yield event
        finally:
            self._replying = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self._shielded:
            return
        if not self._replying or (self._in_engine and (self.hasty or again)):
            raise Cancelled
