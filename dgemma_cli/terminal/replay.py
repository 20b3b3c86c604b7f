"""A recording played on a terminal, with keys to pause, step, scrub and change the speed."""

from __future__ import annotations

import os
import re
import select
import signal
import termios
import threading
import time
import tty
from types import FrameType
from typing import Any

from dgemma_cli.terminal.film import Film
from dgemma_cli.terminal.frame import draw
from dgemma_cli.terminal.interrupts import INTERRUPTS
from dgemma_cli.terminal.layout import crop
from dgemma_cli.terminal.painter import Painter
from dgemma_cli.terminal.palette import DIM, Palette, styled

_POLL_SECONDS = 0.1  # how soon a resize shows while paused
KEYS = "space pause, ←/→ step, 0-9 jump, +/- speed, q end"

_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_NAMES = {b"\x1b[D": "back", b"\x1bOD": "back", b"h": "back", b",": "back"}
_NAMES |= {b"\x1b[C": "on", b"\x1bOC": "on", b"l": "on", b".": "on"}
_NAMES |= {b"\x1b[A": "faster", b"\x1bOA": "faster", b"+": "faster", b"=": "faster"}
_NAMES |= {b"\x1b[B": "slower", b"\x1bOB": "slower", b"-": "slower"}
_NAMES |= {b" ": "pause", b"k": "pause", b"q": "end", b"\r": "end", b"\x04": "end"}
_NAMES |= {b"\x1b[H": "0", b"\x1b[F": "last", b"g": "0", b"G": "last"}
_NAMES |= {str(digit).encode(): str(digit) for digit in range(10)}


class Player:
    """Where a film stands, and what keys do to that."""

    def __init__(self, film: Film, paused: bool = False) -> None:
        self.film = film
        self.paused = paused
        self.place = 0
        self.rate = 1.0
        self.ended = not film.shots
        self._left = self._stay()

    def press(self, key: str) -> None:
        """Do what a key's name says; unknown names do nothing."""
        last = len(self.film.shots) - 1
        match key:
            case "pause":
                self.paused = not self.paused
            case "back" | "on":
                self.paused = True
                self._go(self.place + (1 if key == "on" else -1))
            case "faster" | "slower":
                self.rate = min(64.0, max(1 / 64, self.rate * (2.0 if key == "faster" else 0.5)))
                self._left = min(self._left, self._stay())
            case "last":
                self._go(last)
            case "end":
                self.ended = True
            case _ if key.isdigit():
                self._go(round(last * int(key) / 10))

    def pass_time(self, seconds: float) -> None:
        """Let time go by: on to the next shot when this one has stayed long enough."""
        if self.paused or self.ended:
            return
        self._left -= seconds
        while self._left <= 0 and not self.ended:
            if self.place == len(self.film.shots) - 1:
                self.ended = True
            else:
                left = self._left
                self._go(self.place + 1)
                self._left += left

    @property
    def wait(self) -> float:
        """Seconds until something may change by itself."""
        return _POLL_SECONDS if self.paused else max(0.0, min(self._left, _POLL_SECONDS))

    def lines(self, palette: Palette, columns: int, rows: int) -> list[str]:
        """The picture, and a line that says where in the film it is."""
        shot = self.film.shots[self.place]
        picture = draw(shot.scene, palette, columns, rows, shot.pace)
        state = "paused" if self.paused else f"{self.rate:g}x"
        count = f"{self.place + 1}/{len(self.film.shots)} {palette.dot} {state} {palette.dot} "
        keys = KEYS if palette.unicode else KEYS.replace("←/→", "arrows")
        return [*picture, styled(crop(count + keys, max(1, columns - 1)), DIM)][-max(1, rows - 2) :]

    def _stay(self) -> float:
        return self.film.shots[self.place].seconds / self.rate if self.film.shots else 0.0

    def _go(self, place: int) -> None:
        self.place = min(max(place, 0), len(self.film.shots) - 1)
        self._left = self._stay()


def play(player: Player, painter: Painter, palette: Palette, keyboard: Keyboard) -> None:
    """Show a film until it ends or is ended, and leave the terminal as it was."""
    stopping = False

    def on_stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    def rescue() -> None:
        painter.rescue()
        keyboard.give_back()

    INTERRUPTS.rescue = rescue
    handler = signal.signal(signal.SIGTSTP, on_stop)
    try:
        keyboard.take()
        then = time.monotonic()
        while not player.ended:
            painter.paint(player.lines(palette, *painter.size()))
            for key in keyboard.read(player.wait):
                player.press(key)
            now = time.monotonic()
            player.pass_time(now - then)
            then = now
            if stopping:
                stopping = False
                painter.erase()
                keyboard.give_back()
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
                keyboard.take()
                then = time.monotonic()
    finally:
        painter.erase()
        keyboard.give_back()
        signal.signal(signal.SIGTSTP, handler)
        INTERRUPTS.rescue = None


class Keyboard:
    """Single keys of a terminal, by name. descriptor: None where there is no terminal to read from."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None

    def take(self) -> None:
        """From now on keys come one by one and are not echoed; Ctrl-C and Ctrl-Z still work."""
        if self._descriptor is not None:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)

    def give_back(self) -> None:
        """Put the terminal's settings back. May be called at any time."""
        if self._descriptor is not None and self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
            self._before = None

    def read(self, seconds: float) -> list[str]:
        """The names of the keys pressed, waiting for one for ``seconds`` at the most."""
        if self._descriptor is None:
            time.sleep(seconds)
            return []
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return []
        data = os.read(self._descriptor, 64)
        if not data:  # the terminal has gone
            return ["end"]
        return [_NAMES[key] for key in _KEY.findall(data) if key in _NAMES]
