"""Ctrl-C, SIGTERM and Ctrl-Z while the live view draws: the terminal is left as it was."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from emulated import COMMAND_LINE, Terminal

TEXT = "The first line of text.\nThe second line, which takes its time."


def _state(pid: int) -> str:
    """The process's state as the kernel tells it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["loading", "step 1", "step 3"])
def test_a_signal_leaves_a_clean_terminal(number: int, code: int, moment: str) -> None:
    terminal = Terminal("run", "hi", text=TEXT, canvas=64, steps=50, step_ms=30, load_ms="300")
    terminal.until(lambda lines: any(moment in line for line in lines))
    terminal.signal(number)
    assert terminal.finish() == code
    assert terminal.lines() == [COMMAND_LINE]
    assert terminal.is_clean()


def test_ctrl_c_by_the_keyboard_leaves_no_echo() -> None:
    terminal = Terminal("run", "hi", text=TEXT, canvas=64, steps=50, step_ms=30)
    terminal.until(lambda lines: any("step 3" in line for line in lines))
    terminal.process.sendintr()
    assert terminal.finish() == 130
    assert terminal.lines() == [COMMAND_LINE]
    assert terminal.is_clean()


def test_committed_text_stays_also_its_unfinished_line() -> None:
    terminal = Terminal("run", "hi", text=TEXT, canvas=30, steps=10, step_ms=30)
    terminal.until(lambda lines: any("block 2" in line for line in lines))
    terminal.interrupt()
    assert terminal.finish() == 130
    assert terminal.lines() == [COMMAND_LINE, "The first line of text.", "The se"]
    assert terminal.is_clean()


def test_the_second_ctrl_c_leaves_at_once() -> None:
    """The first one is held up: a step that will not end stands for a library that is slow to let go."""
    terminal = Terminal("run", "hi", text=TEXT, canvas=64, stuck="1")
    terminal.until(lambda lines: any("step 1" in line for line in lines))
    terminal.interrupt()
    time.sleep(0.3)
    assert terminal.process.isalive()
    begun = time.monotonic()
    terminal.interrupt()
    assert terminal.finish() == 130
    assert time.monotonic() - begun < 5
    assert terminal.is_clean()


def test_ctrl_z_leaves_the_screen_and_fg_draws_again() -> None:
    terminal = Terminal("run", "hi", text=TEXT, canvas=64, steps=60, step_ms=30)
    terminal.until(lambda lines: any("step 3" in line for line in lines))
    terminal.signal(signal.SIGTSTP)
    terminal.until(lambda lines: lines == [COMMAND_LINE])
    for _ in range(100):
        if _state(terminal.process.pid) == "T":
            break
        time.sleep(0.02)
    assert _state(terminal.process.pid) == "T"
    assert terminal.is_clean()
    terminal.stream.feed(b"$ fg\r\n")  # the shell, meanwhile
    terminal.signal(signal.SIGCONT)
    terminal.until(lambda lines: any("step" in line for line in lines))
    assert terminal.finish() == 0
    assert terminal.lines() == [COMMAND_LINE, "$ fg", *TEXT.split("\n")]
    assert terminal.is_clean()


def test_a_screen_written_over_while_stopped_is_drawn_again() -> None:
    terminal = Terminal("run", "hi", text=TEXT, canvas=64, steps=200, step_ms=30)
    terminal.until(lambda lines: any("step 3" in line for line in lines))
    os.kill(terminal.process.pid, signal.SIGSTOP)
    while terminal.read(0.2) and _state(terminal.process.pid) != "T":
        pass
    terminal.stream.feed(b"\x1b[2J\x1b[Hjunk")
    terminal.signal(signal.SIGCONT)
    terminal.until(lambda lines: any("step" in line for line in lines) and not any("junk" in line for line in lines))
    terminal.interrupt()
    assert terminal.finish() == 130
