"""Signals that end a run: the first one tidily, the second one at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end. Its exit code is 128 + the signal, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Interrupts:
    """What signals do while a command runs. There is one of these in a process: ``INTERRUPTS``.

    received: the first ending signal, so that an error raised while it unwinds is known for what it is.
    rescue: called before the process ends at once; must do no more than restore the terminal.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.rescue: Callable[[], None] | None = None

    def install(self) -> None:
        """Take SIGINT and SIGTERM. One that the caller had ignored (``nohup``, a script's ``&``) stays ignored."""
        self.received = self.rescue = None
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            if self.rescue is not None:
                self.rescue()
            os._exit(128 + number)
        self.received = number
        raise Interrupted(number)


INTERRUPTS = Interrupts()
