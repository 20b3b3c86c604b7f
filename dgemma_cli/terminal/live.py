"""The live view: a thread paints the newest step, thirty times a second at the most; steps never wait for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from dgemma_cli.terminal.entries import Entry
from dgemma_cli.terminal.frame import Scene, draw
from dgemma_cli.terminal.interrupts import INTERRUPTS
from dgemma_cli.terminal.pace import Clock
from dgemma_cli.terminal.painter import Painter
from dgemma_cli.terminal.palette import Palette

_FRAME_SECONDS = 1 / 30
_IDLE_SECONDS = 0.1  # how soon a resize shows when no step comes


class LiveView:
    """Shows a run while it goes on. Whatever happens here, ``close`` leaves the terminal as it was.

    A failure in drawing ends the view (``failure`` tells it), never the run.
    """

    def __init__(self, painter: Painter, palette: Palette, unfold_thinking: bool = False) -> None:
        self._painter = painter
        self._palette = palette
        self._unfold = unfold_thinking
        self._scene = Scene()
        self._lock = threading.RLock()  # guards the terminal and the scene
        self._news = threading.Event()
        self._closed = False
        self._stopping = False
        self._waiting_since = time.perf_counter()
        self._handlers: dict[int, Any] = {}
        self._clock = Clock()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)

    def start(self, activity: str) -> None:
        """Begin to draw. activity: what goes on, such as "loading nano"."""
        self._scene.activity = activity
        self._news.set()
        INTERRUPTS.rescue = self._painter.rescue
        for number, handler in ((signal.SIGTSTP, self._on_stop), (signal.SIGCONT, self._on_continue)):
            self._handlers[number] = signal.signal(number, handler)
        self._thread.start()

    def tell(self, activity: str) -> None:
        """Change what the status line says while there is no canvas."""
        with self._lock:
            self._scene.activity = activity
        self._news.set()

    def show(self, entry: Entry) -> None:
        """Take in an entry; it is drawn soon, or never if a newer one comes first."""
        with self._lock:
            now = time.perf_counter()
            self._clock.note(entry, now)
            self._scene.feed(entry)
            self._waiting_since = now
        self._news.set()

    def print_above(
        self, write: Callable[[], None] | None, text: str | None = None, thinking: str | None = None
    ) -> None:
        """Let ``write`` print above the frame, which is drawn again below it.

        text, thinking: what the frame keeps of the committed text from now on, where it is given.
        """
        with self._lock:
            if write is not None:
                self._erase()
                write()
            if text is not None:
                self._scene.text = text
            if thinking is not None:
                self._scene.thinking = thinking
        self._news.set()

    def close(self) -> None:
        """Stop drawing and leave nothing behind. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._erase()
        INTERRUPTS.rescue = None
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z. The drawing thread stops the process once the screen is clean."""
        self._stopping = True
        self._news.set()

    def _on_continue(self, _number: int, _frame: FrameType | None) -> None:
        """The shell may have written over the frame."""
        self._painter.forget()
        self._news.set()

    def _erase(self) -> None:
        try:
            self._painter.erase()
        except OSError as error:  # the terminal has gone
            self.failure = error

    def _run(self) -> None:
        while not self._closed:
            changed = self._news.wait(_IDLE_SECONDS)
            if not changed and self._scene.block is not None and not self._painter.resized:
                continue
            self._news.clear()
            begun = time.perf_counter()
            try:
                if self._stopping:
                    self._stop_process()
                self._paint()
            except Exception as error:
                self.failure = error
                with self._lock:
                    self._erase()
                return
            time.sleep(max(0.0, _FRAME_SECONDS - (time.perf_counter() - begun)))

    def _stop_process(self) -> None:
        with self._lock:
            self._painter.erase()
            self._stopping = False
            # To this thread, so that it paints no more: the whole process stops before the call returns.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def _paint(self) -> None:
        columns, rows = self._painter.size()
        with self._lock:
            scene = self._scene.snapshot()
            scene.waited = int(time.perf_counter() - self._waiting_since)
            pace = self._clock.pace
            if self._closed:
                return
            self._painter.paint(draw(scene, self._palette, columns, rows, pace, self._unfold))
