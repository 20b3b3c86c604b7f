"""Where a run's results go: the answer as it comes, one JSON object, or JSON lines; to standard output or a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from dgemma_cli.errors import DiskError
from dgemma_cli.terminal import json_lines
from dgemma_cli.terminal.entries import Commit, Entry, Finish, Start
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.live import LiveView
from dgemma_cli.terminal.untrusted import visible


class Sink(Protocol):
    """Takes the entries of a run and writes what it is for."""

    def show(self, entry: Entry) -> None: ...

    def close(self) -> None:
        """Write what is left to write. Called once, after the live view is gone, also when the run was cut short."""


class Target:
    """A place for text: standard output, or a file.

    A file is opened at once, so that a wrong path is told before any work, but emptied only by the first write.
    Text is exact there and in a pipe, and made safe for a terminal.
    """

    def __init__(self, environment: Environment, path: Path | None = None) -> None:
        self._environment = environment
        self._path = path
        self.is_terminal = path is None and environment.stdout_is_terminal
        self._written = False
        if path is not None:
            self._existed = path.exists()
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise _unwritable(path, error) from None

    def write(self, text: str) -> None:
        """Write text at once. Raises DiskError or OutputClosed."""
        if self._path is None:
            self._environment.write(visible(text) if self.is_terminal else text)
            return
        data = text.encode(errors="replace")
        try:
            if not self._written:
                _truncate(self._descriptor)
                self._written = True
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def close(self) -> None:
        """Close the file. One that was made and got nothing is taken away again."""
        if self._path is None:
            return
        os.close(self._descriptor)
        if not self._written and not self._existed:
            self._path.unlink(missing_ok=True)


def _truncate(descriptor: int) -> None:
    """Empty a file; a device or a pipe has nothing to empty."""
    try:
        os.ftruncate(descriptor, 0)
    except OSError:
        if os.lseek(descriptor, 0, os.SEEK_END):
            raise


def _unwritable(path: Path, error: OSError) -> DiskError:
    return DiskError(f"{path} cannot be written: {error.strerror}.")


class AnswerSink:
    """Writes the answer as its blocks are committed, and a newline at its end.

    render: writes the whole answer at the end instead. thinking: writes thoughts, as they come, where they are wanted.
    """

    def __init__(
        self,
        target: Target,
        view: LiveView | None = None,
        render: Callable[[str], None] | None = None,
        thinking: Callable[[str], None] | None = None,
    ) -> None:
        self._target = target
        self._render = render
        self._whole = ""
        self._complete = False
        self._answer = _Flow(target.write, view, "text", shares_screen=target.is_terminal)
        self._thinking = _Flow(thinking, view, "thinking", shares_screen=True) if thinking else None

    def show(self, entry: Entry) -> None:
        if isinstance(entry, Commit):
            if self._thinking:
                self._thinking.add(entry.thinking)
            self._add(entry.text)
        elif isinstance(entry, Finish):
            self._add(entry.rest)
            self._complete = True

    def close(self) -> None:
        if self._thinking:
            self._thinking.finish()
        if self._render is not None:
            self._render(self._whole)
        else:
            self._answer.finish(always=self._complete)
        self._target.close()

    def _add(self, text: str) -> None:
        if self._render is not None:
            self._whole += text
        elif text:
            if self._thinking:
                self._thinking.finish()
            self._answer.add(text)


class _Flow:
    """Text on its way out. Where it shares the screen with a live view, complete lines are printed above the frame,
    and the last, unfinished one waits in it.
    """

    def __init__(
        self,
        put: Callable[[str], None],
        view: LiveView | None,
        kind: Literal["text", "thinking"],
        shares_screen: bool,
    ) -> None:
        self._put = put
        self._view = view
        self._kind = kind
        self._waits = view is not None and shares_screen
        self._waiting = ""
        self._begun = False

    def add(self, text: str) -> None:
        """Write text, or what it completes."""
        if not text:
            return
        self._begun = True
        lines, newline, rest = (self._waiting + text).rpartition("\n")
        if not self._waits:
            self._put(text)
            self._show_above(None, rest)
        elif newline:
            self._waiting = rest
            self._show_above(lines + newline, rest)
        else:
            self._waiting = rest

    def finish(self, always: bool = False) -> None:
        """Write what waits and end the line. always: also where there was no text."""
        if not self._begun and not always:
            return
        waiting, self._waiting, self._begun = self._waiting, "", False
        if self._waits:
            self._show_above(waiting + "\n", "")
        else:
            self._put(waiting + "\n")

    def _show_above(self, text: str | None, rest: str) -> None:
        """Print text above the frame, which keeps ``rest``."""
        if self._view is None:
            return
        write = None if text is None else partial(self._put, text)
        if self._kind == "text":
            self._view.print_above(write, text=rest)
        else:
            self._view.print_above(write, thinking=rest)


class JsonSink:
    """Writes one object at the end; nothing if the run was cut short."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._start: Start | None = None
        self._finish: Finish | None = None

    def show(self, entry: Entry) -> None:
        if isinstance(entry, Start):
            self._start = entry
        elif isinstance(entry, Finish):
            self._finish = entry

    def close(self) -> None:
        if self._start and self._finish:
            self._target.write(json_lines.result(self._start, self._finish) + "\n")
        self._target.close()


class JsonLinesSink:
    """Writes every entry as it comes, a line each: the output of ``--jsonl`` and a recording."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._begun = time.perf_counter()

    def show(self, entry: Entry) -> None:
        if isinstance(entry, Start):
            self._begun = time.perf_counter()
        self._target.write(json_lines.to_line(entry, time.perf_counter() - self._begun) + "\n")

    def close(self) -> None:
        self._target.close()
