"""The live view through tmux, which reflows lines when its window changes size."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

SCRIPTED = Path(__file__).parent / "scripted_dgemma.py"
TEXT = (
    "Text crystallises out of noise, a block at a time, and every block is many words long.\n"
    "The second paragraph is here so that something has to wrap, on a narrow screen more than once.\n"
    "- 世界 and 🎉 take two cells\nThe end."
)


class Tmux:
    """A tmux server of its own with one window, in which sh shows the prompt "$ "."""

    def __init__(self, directory: Path, columns: int, rows: int) -> None:
        self._socket = str(directory / "tmux")
        variables = {**os.environ, "SCRIPT_TEXT": json.dumps(TEXT), "SCRIPT_CANVAS": "64", "SCRIPT_STEPS": "6"}
        start = directory / "profile"
        start.write_text("PS1='$ '\n")
        variables |= {"SCRIPT_STEP_MS": "60", "ENV": str(start), "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
        for name in ("TMUX", "NO_COLOR", "FORCE_COLOR"):
            variables.pop(name, None)
        size = ["-x", str(columns), "-y", str(rows)]
        command = ["tmux", "-u", "-S", self._socket, "-f", os.devnull, "new-session", "-d", *size, "sh"]
        subprocess.run(command, check=True, env=variables)
        self.until(lambda lines: lines[-1:] == ["$"])

    def tell(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-S", self._socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, command: str) -> None:
        self.tell("send-keys", "-l", command)
        self.tell("send-keys", "Enter")

    def lines(self) -> list[str]:
        """Scrollback and screen, lines that tmux wrapped joined again."""
        return [line.rstrip() for line in self.tell("capture-pane", "-p", "-J", "-S", "-").rstrip().split("\n")]

    def until(self, seen: Callable[[list[str]], bool]) -> None:
        end = time.monotonic() + 20
        while not seen(self.lines()):
            assert time.monotonic() < end, self.lines()
            time.sleep(0.02)

    def close(self) -> None:
        self.tell("kill-server")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[[int, int], Tmux]]:
    made: list[Tmux] = []

    def make(columns: int, rows: int) -> Tmux:
        made.append(Tmux(tmp_path, columns, rows))
        return made[-1]

    yield make
    for one in made:
        one.close()


RUN = f"{shlex.quote(sys.executable)} {shlex.quote(str(SCRIPTED))} run hi"


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 6), (200, 40)])
def test_the_answer_is_left_once(tmux: Callable[[int, int], Tmux], columns: int, rows: int) -> None:
    terminal = tmux(columns, rows)
    terminal.type(RUN)
    terminal.until(lambda lines: any("settled" in line for line in lines))
    terminal.until(lambda lines: lines[-1] == "$" and len(lines) > 2)
    assert terminal.lines() == [f"$ {RUN}", *TEXT.split("\n"), "$"]


def test_a_frame_at_the_top_of_the_screen_is_not_kept_in_the_scrollback(tmux: Callable[[int, int], Tmux]) -> None:
    terminal = tmux(80, 24)
    terminal.type(f"clear; {RUN}")
    terminal.until(lambda lines: lines[-1] == "$" and len(lines) > 2)
    assert terminal.lines() == [*TEXT.split("\n"), "$"]


def test_resizes_on_the_way_leave_the_answer_once(tmux: Callable[[int, int], Tmux]) -> None:
    """Not from the top of the screen: there tmux itself moves rows of a reflowed frame into its history."""
    terminal = tmux(120, 40)
    terminal.type(f"clear; seq 20; {RUN}")
    for columns, rows, block in [(50, 40, 1), (90, 44, 2), (40, 40, 3), (140, 50, 4)]:
        terminal.until(lambda lines, block=block: any(f"block {block} · step 2/" in line for line in lines))  # type: ignore[misc]
        terminal.tell("resize-window", "-x", str(columns), "-y", str(rows))
    terminal.until(lambda lines: lines[-1] == "$" and len(lines) > 2)
    assert terminal.lines() == [*map(str, range(1, 21)), *TEXT.split("\n"), "$"]


def test_ctrl_c_and_ctrl_z_in_a_shell(tmux: Callable[[int, int], Tmux]) -> None:
    terminal = tmux(100, 24)
    terminal.type("set -m; clear")
    terminal.until(lambda lines: lines == ["$"])
    terminal.type(f"SCRIPT_STEPS=40 {RUN}; echo code $?")
    terminal.until(lambda lines: any("step 2/" in line for line in lines))
    terminal.tell("send-keys", "C-z")
    terminal.until(lambda lines: any("Stopped" in line for line in lines))
    assert not any("░" in line for line in terminal.lines())
    terminal.type("fg")
    terminal.until(lambda lines: any("step" in line for line in lines))
    terminal.tell("send-keys", "C-c")
    terminal.until(lambda lines: lines[-1] == "$" and "fg" in lines[-3:][0] + lines[-2])
    assert not any("░" in line or "^C" in line for line in terminal.lines())
    assert terminal.tell("display-message", "-p", "#{cursor_flag}").strip() == "1"
