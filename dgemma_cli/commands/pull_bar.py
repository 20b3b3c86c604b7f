"""How far a pull is: one bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.interrupts import INTERRUPTS
from dgemma_cli.terminal.painter import RESTORE
from dgemma_cli.units import size

_REDRAW = 0.05  # seconds between two updates of the bar
_LINE_EVERY = 30.0  # seconds between two lines in a log


class _Sum:
    """Adds up what several threads report of their files."""

    def __init__(self, here: int, every: float, tell: Callable[[int], None]) -> None:
        self._here = here
        self._every = every
        self._tell = tell
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()
        self._next = time.monotonic() + every

    def report(self, name: str, done: int) -> None:
        """``done`` bytes of the file ``name`` are here."""
        with self._lock:
            self._files[name] = done
            if time.monotonic() >= self._next:
                self._tell(self.total())
                self._next = time.monotonic() + self._every

    def total(self) -> int:
        """Bytes of all files that are here."""
        return max(self._here, sum(self._files.values()))


@contextmanager
def watched(environment: Environment, total: int, here: int, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """A report for ``pull`` that shows on standard error how many of ``total`` bytes have come; ``here`` had before."""
    if quiet:
        yield lambda _name, _done: None
    elif environment.stderr_is_terminal and not environment.dumb:
        with _bar(environment, total, here) as report:
            yield report
    else:
        lines = _Sum(here, _LINE_EVERY, lambda done: environment.say(f"{size(done)} of {size(total)}"))
        yield lines.report


@contextmanager
def _bar(environment: Environment, total: int, here: int) -> Iterator[Callable[[str, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, no_color=not environment.color(), highlight=False)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
    INTERRUPTS.rescue = _rescue
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=total, completed=here)
            both = _Sum(here, _REDRAW, lambda done: progress.update(task, completed=done))
            yield both.report
    finally:
        INTERRUPTS.rescue = None


def _rescue() -> None:
    """Give the terminal back before the process ends at once."""
    with suppress(OSError):
        os.write(2, RESTORE.encode())
