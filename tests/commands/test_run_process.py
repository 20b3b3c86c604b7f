"""``dgemma`` as a process: start-up, pipes that close, disks that are full, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTED = str(Path(__file__).parent.parent / "tty" / "scripted_dgemma.py")
QUICK = {**os.environ, "SCRIPT_TEXT": '"Hello, world."', "SCRIPT_CANVAS": "8"}
SLOW = {**QUICK, "SCRIPT_STEP_MS": "50", "SCRIPT_STEPS": "10"}


def scripted(*arguments: str, shell: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the scripted dgemma, alone or in a line of sh where $DGEMMA stands for it."""
    command = ["sh", "-c", shell] if shell else [sys.executable, SCRIPTED, *arguments]
    variables = {**(env or QUICK), "DGEMMA": f"{sys.executable} {SCRIPTED}"}
    return subprocess.run(command, capture_output=True, env=variables, stdin=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["run", "--help"], ["run"], ["run", "x", "--steps", "0"]]
)
def test_what_needs_no_model_imports_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from dgemma_cli.__main__ import main\n"
        f"main({arguments!r})\n"
        "heavy = {'torch', 'transformers', 'numpy', 'tokenizers.tokenizers'} & set(sys.modules)\n"
        "assert not heavy - {'tokenizers.tokenizers'}, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_the_version_is_the_packages() -> None:
    from dgemma_cli import __version__

    done = subprocess.run([sys.executable, "-m", "dgemma_cli", "--version"], capture_output=True, timeout=60)
    assert done.stdout.decode() == f"dgemma {__version__}\n"


def test_a_reader_that_leaves_ends_the_run_quietly() -> None:
    lines = {
        **QUICK,
        "SCRIPT_TEXT": '"one\\ntwo\\nthree\\nfour\\nfive\\n"',
        "SCRIPT_CANVAS": "5",
        "SCRIPT_STEP_MS": "20",
    }
    done = scripted(shell="($DGEMMA run hi; echo $? >&2) | head -n 1", env=lines)
    assert (done.stdout, done.stderr) == (b"one\n", b"141\n")
    done = scripted(shell="($DGEMMA run hi --jsonl; echo $? >&2) | head -c 1", env=lines)
    assert (done.stdout, done.stderr) == (b"{", b"141\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["run hi", "run hi --json", "run hi --jsonl", "run hi -o /dev/full", "--version"])
def test_a_full_disk_is_an_error_line(arguments: str) -> None:
    done = scripted(shell=f"$DGEMMA {arguments} >/dev/full")
    assert done.returncode == 6
    assert done.stderr.startswith(b"error: ")
    assert b"No space" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [[], ["chats"], ["config"]])
def test_a_group_without_a_command_shows_its_help(arguments: list[str]) -> None:
    done = scripted(*arguments)
    helped = scripted(*arguments, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", helped.stdout)
    assert helped.stdout.count(b"\n") > 5


def test_closed_streams_are_no_surprise() -> None:
    assert scripted(shell="$DGEMMA run hi <&-").stdout == b"Hello, world.\n"
    assert scripted(shell="$DGEMMA run hi 2>&-").stdout == b"Hello, world.\n"
    assert scripted(shell="$DGEMMA run hi >&-").returncode == 0
    assert scripted(shell="$DGEMMA run <&-").returncode == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_signal_ends_the_run_and_keeps_what_is_committed(number: int, code: int, flags: list[str]) -> None:
    said = "Hello, w" + 500 * "orld. "  # more than can be written by then
    process = subprocess.Popen(
        [sys.executable, SCRIPTED, "run", "hi", *flags, "--record", "/dev/null"],
        bufsize=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**SLOW, "SCRIPT_TEXT": json.dumps(said)},
    )
    assert process.stdout is not None
    if flags:
        time.sleep(0.8)
        committed = b""
    else:
        committed = process.stdout.read(8)  # the first block
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert err == b""
    if flags:
        assert out == b""
    else:
        text = (committed + out).decode().removesuffix("\n")
        assert text + "\n" == (committed + out).decode()
        assert said.startswith(text) and 8 <= len(text) < len(said) and len(text) % 8 == 0


def test_a_signal_while_loading_ends_the_run() -> None:
    process = subprocess.Popen(
        [sys.executable, SCRIPTED, "run", "hi", "-v"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**QUICK, "SCRIPT_LOAD_MS": "20000"},
    )
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' INT; exec {sys.executable} {SCRIPTED} run hi"],
        bufsize=0,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=SLOW,
    )
    assert process.stdout is not None
    first = process.stdout.read(8)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, first + out) == (0, b"Hello, world.\n")
