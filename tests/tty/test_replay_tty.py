"""``dgemma replay`` on a real pseudo-terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from emulated import COMMAND_LINE, Terminal

TEXT = "Hello, world.\nSecond line."


@pytest.fixture
def recording(tmp_path: Path) -> str:
    file = tmp_path / "run.jsonl"
    recorder = Terminal("run", "hi", "--record", str(file), "--no-live", text=TEXT, canvas=8, step_ms=0)
    assert recorder.finish() == 0
    return str(file)


def test_a_replay_ends_with_the_answer_once(recording: str) -> None:
    terminal = Terminal("replay", recording, "--slow", "20")
    shown: set[str] = set()
    assert terminal.finish(lambda lines: shown.update(lines)) == 0
    assert any("step 3/48" in line for line in shown)
    assert terminal.lines() == [COMMAND_LINE, *TEXT.split("\n")]
    assert terminal.is_clean()


def test_keys_pause_step_jump_and_end(recording: str) -> None:
    terminal = Terminal("replay", recording, "--paused", columns=120)
    terminal.until(lambda lines: "1/21 · paused" in lines[-1])
    for keys, place in [
        ("\x1b[C", 2),
        ("ll", 4),
        ("\x1b[D", 3),
        (",", 2),
        ("5", 11),
        ("G", 21),
        ("g", 1),
        ("x\x1b[5~", 1),
    ]:
        terminal.process.send(keys)
        terminal.until(lambda lines, place=place: f"{place}/21 · paused" in lines[-1])  # type: ignore[misc]
    terminal.process.send("+ ")
    terminal.until(lambda lines: "· 2x ·" in lines[-1])
    terminal.process.send("q")
    assert terminal.finish() == 0
    assert terminal.lines() == [COMMAND_LINE, *TEXT.split("\n")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_gives_the_terminal_back(recording: str, number: int, code: int) -> None:
    terminal = Terminal("replay", recording, "--paused")
    before = termios.tcgetattr(terminal.process.child_fd)
    terminal.until(lambda lines: "paused" in lines[-1])
    assert termios.tcgetattr(terminal.process.child_fd) != before
    terminal.signal(number)
    while terminal.read() and termios.tcgetattr(terminal.process.child_fd) != before:
        pass
    assert termios.tcgetattr(terminal.process.child_fd) == before
    assert terminal.finish() == code
    assert terminal.lines() == [COMMAND_LINE]
    assert terminal.is_clean()


def test_without_a_terminal_it_is_refused(recording: str) -> None:
    command = [sys.executable, "-m", "dgemma_cli", "replay", recording]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: A replay needs a terminal.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speed", "0"], "speed must be more than 0, not 0."),
        (["--speed", "nan"], "speed must be more than 0, not nan."),
        (["--slow", "-1"], "slow must be at least 0, not -1."),
        (["--color-by", "entropy", "--no-color"], "--color-by entropy needs colours"),
    ],
)
def test_wrong_options_are_refused(recording: str, arguments: list[str], message: str) -> None:
    terminal = Terminal("replay", recording, *arguments, columns=200)
    assert terminal.finish() == 2
    assert f"error: {message}" in terminal.lines()[1]
