"""The bar of a pull over a real pseudo-terminal, and the lines of one in a log."""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest
from fake_hub import FakeHub, Fault
from hub_fixtures import hub_environment

from dgemma_cli.commands import pull_bar
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.interrupts import INTERRUPTS

ROOT = Path(__file__).parents[2]
Checkpoint = Callable[..., dict[str, bytes]]
NAME = "tiny/bf16"


def spawn(hub: FakeHub, home: Path, *arguments: str, **more: str) -> pexpect.spawn[str]:
    import os

    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "DGEMMA_", "NO_COLOR"))}
    variables = {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **hub_environment(hub, home), **more}
    return pexpect.spawn(
        sys.executable, ["-m", "dgemma_cli", *arguments], env=variables, encoding="utf-8", dimensions=(24, 100)
    )


def test_the_bar_moves_and_goes_away(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    pyte = pytest.importorskip("pyte")
    hub.add(NAME, checkpoint())
    hub.faults = [Fault("model.safetensors", times=1), Fault("model.safetensors", rate=300_000.0)]
    child = spawn(hub, tmp_path, "pull", NAME)
    child.expect("[kM]B/s", timeout=30)
    child.expect(pexpect.EOF, timeout=30)
    screen = pyte.Screen(100, 24)
    # From the first byte on, as a terminal that was there all the time would show it.
    pyte.Stream(screen).feed(child.before)
    child.close()
    assert child.exitstatus == 0
    shown = [line.rstrip() for line in screen.display if line.strip()]
    assert any("is ready" in line for line in shown)
    assert not any("B/s" in line for line in shown), shown
    assert not screen.cursor.hidden


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_gives_the_terminal_back(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path, presses: int) -> None:
    hub.add(NAME, checkpoint())
    hub.faults = [Fault("model.safetensors", times=1), Fault("model.safetensors", rate=50_000.0)]
    child = spawn(hub, tmp_path, "pull", NAME)
    child.expect("[kM]B/s", timeout=30)
    for _ in range(presses):
        child.kill(signal.SIGINT)
    child.expect(pexpect.EOF, timeout=30)
    child.close()
    # While Python takes itself down, the second one ends the process by the signal, which shells report as 130 too.
    assert (child.exitstatus or 128 + child.signalstatus) == 130
    assert child.before.rfind("\x1b[?25h") > child.before.rfind("\x1b[?25l")
    assert "Traceback" not in child.before


def test_rm_asks_on_a_terminal(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    hub.add(NAME, checkpoint())
    child = spawn(hub, tmp_path, "pull", "-q", NAME)
    child.expect(pexpect.EOF, timeout=60)
    for answer, message in (("n", "Nothing was removed"), ("y", "freed")):
        child = spawn(hub, tmp_path, "rm", NAME)
        child.expect(r"Remove tiny/bf16 \(.* kB in .*\)\? \[y/N\]", timeout=30)
        child.sendline(answer)
        child.expect(message, timeout=30)
        child.expect(pexpect.EOF, timeout=30)


@pytest.mark.parametrize("answer", ["y", "n"])
def test_run_offers_to_fetch_on_a_terminal(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path, answer: str) -> None:
    hub.add(NAME, checkpoint())
    child = spawn(hub, tmp_path, "run", "-m", NAME, "-n", "8", "--steps", "1", "--no-live", "--stats", "hi")
    child.expect(r"is not on this machine(.|\n)*Fetch it now\? \[Y/n\]", timeout=30)
    child.sendline(answer)
    child.expect("1 step" if answer == "y" else "is not downloaded", timeout=60)
    child.expect(pexpect.EOF, timeout=60)
    child.close()
    assert child.exitstatus == (0 if answer == "y" else 3)


@pytest.mark.parametrize("command", ["run", "chat", "serve"])
def test_without_model_and_network_both_ways_out_are_named(hub: FakeHub, tmp_path: Path, command: str) -> None:
    child = spawn(hub, tmp_path, command, *(["hi"] if command == "run" else []), HF_ENDPOINT="http://127.0.0.1:9")
    child.expect(pexpect.EOF, timeout=30)
    child.close()
    assert child.exitstatus == 7
    error, *hints = child.before.replace("\r", "").partition("error:")[2].strip().split("\n")
    assert "diffusiongemma is not on this machine, and the Hub at http://127.0.0.1:9 cannot be reached" in error
    assert [("dgemma pull diffusiongemma" in hint, "-m nano" in hint) for hint in hints] == [
        (True, False),
        (False, True),
    ]


def environment(stderr: io.BytesIO) -> Environment:
    return Environment(
        stdin=io.BytesIO(),
        stdout=io.BytesIO(),
        stderr=stderr,
        stdin_is_terminal=False,
        stdout_is_terminal=False,
        stderr_is_terminal=False,
        stdout_is_pipe=False,
        encoding="utf-8",
        variables={},
    )


def test_a_second_ctrl_c_finds_how_to_restore_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = replace(environment(io.BytesIO()), stderr_is_terminal=True, variables={"TERM": "xterm"})
    with pull_bar.watched(terminal, total=10, here=0, quiet=False):
        capfd.readouterr()
        assert INTERRUPTS.rescue is not None
        INTERRUPTS.rescue()
        assert "\x1b[?25h" in capfd.readouterr().err
    assert INTERRUPTS.rescue is None


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stderr = io.BytesIO()
    with pull_bar.watched(environment(stderr), total=10_000, here=1_000, quiet=False) as report:
        report("a", 1_000)
        now = 31.0
        report("b", 2_000)
        now = 32.0
        report("b", 3_000)
        now = 70.0
        report("a", 5_000)
    assert stderr.getvalue().decode().splitlines() == ["3.0 kB of 10.0 kB", "8.0 kB of 10.0 kB"]


def test_quiet_is_quiet() -> None:
    stderr = io.BytesIO()
    with pull_bar.watched(environment(stderr), total=10, here=0, quiet=True) as report:
        report("a", 10)
    assert stderr.getvalue() == b""
