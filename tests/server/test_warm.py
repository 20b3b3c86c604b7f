"""``run`` and ``chat`` with a server on this machine: used where it fits, done without where it does not or is gone."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from pathlib import Path
from typing import Any

import pexpect
import pytest
from identities import identity
from running import Running, running

from dgemma_cli.server import places
from dgemma_cli.server.identity import Identity

NANO = Path(str(files("dgemma_cli"))) / "nano"
SCRIPTED = {"SCRIPT_FOLDER": str(NANO)}
FRANCE = ("--seed", "1", "What is the capital of France?")
PARIS = "The capital of France is Paris.\n"

pytestmark = pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="nano is not in this tree")


def dgemma(runtime: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dgemma_cli", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "DGEMMA_RUNTIME_DIR": str(runtime), **variables},
        timeout=60,
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """It says that it has nano, so what it writes tells that it was asked."""
    with running(**SCRIPTED) as found:
        yield found


def test_a_matching_server_writes_and_no_torch_is_imported(server: Running) -> None:
    code = (
        "import sys\nfrom dgemma_cli.__main__ import main\n"
        "code = main(['run', '-m', 'nano', '-v', 'say: warm'])\n"
        "heavy = {'torch', 'starlette', 'uvicorn', 'numpy', 'jinja2', 'tokenizers.tokenizers'} & set(sys.modules)\n"
        "print(code, sorted(heavy - {'tokenizers.tokenizers'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "DGEMMA_RUNTIME_DIR": str(server.runtime)},
        timeout=60,
    )
    assert done.stdout.splitlines() == ["warm", "0 []"]
    assert f"the server with pid {server.process.pid}" in done.stderr


def test_it_is_asked_for_everything_a_run_can_be_asked(server: Running, tmp_path: Path) -> None:
    film = tmp_path / "film"
    flags = ["--jsonl", "--record", str(film), "--think", "-s", "Be brief.", "--preset", "fast", "--stats", "-n", "9"]
    done = dgemma(server.runtime, "run", "-m", "nano", "say: abcdefghij", *flags)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [lines[0][key] for key in ("model", "prompt", "system")] == ["scripted", "say: abcdefghij", "Be brief."]
    assert {line["event"] for line in lines} == {"start", "prompt", "block", "step", "commit", "finish"}
    assert lines[-1]["text"] == "abcdefghi"
    assert film.read_text().count("\n") == len(lines)
    assert "first draft" in done.stderr


@pytest.mark.parametrize(
    ("flags", "variables", "why"),
    [
        (["--no-server"], {}, ""),
        ([], {"DGEMMA_SERVER": "0"}, ""),
        (["--dtype", "bfloat16"], {}, "it computes in float32"),
        ([], {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES is another there"),
    ],
)
def test_without_a_match_the_model_is_loaded_here(
    server: Running, flags: list[str], variables: dict[str, str], why: str
) -> None:
    done = dgemma(server.runtime, "run", "-m", "nano", "-v", *flags, *FRANCE, **variables)
    assert (done.returncode, done.stdout) == (0, PARIS)
    assert f"({NANO})" in done.stderr
    assert why in done.stderr


def test_a_server_that_was_killed_is_swept_away_and_the_command_answers() -> None:
    with running(**SCRIPTED) as dead:
        dead.process.kill()
        dead.process.wait()
        assert dead.socket.exists()
        done = dgemma(dead.runtime, "run", "-m", "nano", *FRANCE)
        assert (done.returncode, done.stdout, done.stderr) == (0, PARIS, "")
        assert not dead.socket.exists()


def test_a_kill_in_the_middle_of_an_answer_is_one_line() -> None:
    with running(**SCRIPTED, SCRIPT_STEP_MS="50") as doomed:
        process = subprocess.Popen(
            [sys.executable, "-m", "dgemma_cli", "run", "-m", "nano", "say: " + "word " * 100],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "DGEMMA_RUNTIME_DIR": str(doomed.runtime)},
        )
        assert process.stdout is not None
        assert process.stdout.read(4) == b"word"
        doomed.process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 7
    assert out.endswith(b"\n")  # what had come stays
    first, *hints = err.decode().splitlines()
    assert first == f"error: The server with pid {doomed.process.pid} went away in the middle of the answer."
    assert hints == ["  Run it again."]


class _Vanishing(BaseHTTPRequestHandler):
    """Says who it is, and hangs up on every question."""

    identity: Identity

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        data = json.dumps(self.identity.as_dict()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.close_connection = True


@contextmanager
def vanishing(runtime: Path) -> Iterator[None]:
    handler = type("Handler", (_Vanishing,), {"identity": identity(NANO, os.environ)})
    path = places.own_folder(runtime) / "1.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), handler) as server:
        server.daemon_threads = True
        handler.client_address = ("", 0)  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield
        server.shutdown()


def test_a_server_that_goes_before_it_answers_is_done_without(tmp_path: Path) -> None:
    runtime = Path(os.environ["DGEMMA_RUNTIME_DIR"]) / "v"
    with vanishing(runtime):
        done = dgemma(runtime, "run", "-m", "nano", *FRANCE)
    assert (done.returncode, done.stdout) == (0, PARIS)
    assert done.stderr == "The server with pid 1 went away without an answer. The model is loaded here instead.\n"


def test_keep_leaves_a_server_behind_which_others_use() -> None:
    runtime = Path(os.environ["DGEMMA_RUNTIME_DIR"]) / "k"
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "dgemma_cli", "run", "-m", "nano", "-v", "--keep", "90s", "--json", *FRANCE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DGEMMA_RUNTIME_DIR": str(runtime)},
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=60) for process in both]
    (state,) = json.loads(dgemma(runtime, "ps", "--json").stdout)
    assert all(f"pid {state['pid']}" in err for _, err in told)  # they shared the one that came first
    assert {json.loads(out)["text"] for out, _ in told} == {PARIS.strip()}
    assert (state["name"], state["keep"], state["addresses"]) == ("nano", 90.0, [])
    assert os.getsid(state["pid"]) == state["pid"]  # of a session of its own
    plain = json.loads(dgemma(runtime, "run", "-m", "nano", "--json", *FRANCE).stdout)
    here = json.loads(dgemma(runtime, "run", "-m", "nano", "--json", "--no-server", *FRANCE).stdout)
    same = [key for key in plain if not key.endswith("seconds") and key != "tokens_per_second"]
    assert {key: plain[key] for key in same} == {key: here[key] for key in same}
    assert dgemma(runtime, "stop").stderr == f"stopped nano (pid {state['pid']})\n"
    assert dgemma(runtime, "ps", "--json").stdout == "[]\n"


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    runtime = Path(os.environ["DGEMMA_RUNTIME_DIR"]) / "f"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    done = dgemma(runtime, "run", "-m", str(folder), "--keep", "1m", "Hi")
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not places.sockets(runtime)


@pytest.mark.parametrize("flags", [["--keep", "soon"], ["--keep", "10"], ["--keep", "1m", "--no-server"]])
def test_keeping_that_makes_no_sense(flags: list[str], tmp_path: Path) -> None:
    done = dgemma(tmp_path, "run", "-m", "nano", "Hi", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert "keep" in done.stderr.splitlines()[0]


def test_ps_and_stop(server: Running) -> None:
    listed = dgemma(server.runtime, "ps").stdout.splitlines()
    assert listed[0].split() == ["PID", "MODEL", "DEVICE", "MEMORY", "STATE", "UNTIL", "ADDRESS"]
    assert listed[1].split()[:2] == [str(server.process.pid), "scripted"]
    assert server.url in listed[1]
    assert dgemma(server.runtime, "stop", "other").returncode == 2
    with running() as second:
        second.socket.rename(server.runtime / second.socket.name)
        many = dgemma(server.runtime, "stop")
        assert (many.returncode, "--all" in many.stderr) == (2, True)
        done = dgemma(server.runtime, "stop", str(second.process.pid))
        assert done.stderr == f"stopped scripted (pid {second.process.pid})\n"
        assert second.process.wait(5) == 0
        (server.runtime / second.socket.name).unlink(missing_ok=True)
    assert dgemma(second.runtime, "stop").stderr == "No server runs.\n"


def test_a_chat_in_a_server_goes_on_without_it() -> None:
    with running(**SCRIPTED) as server:
        variables = {**os.environ, "DGEMMA_RUNTIME_DIR": str(server.runtime), "TERM": "xterm", "DGEMMA_SAVE": "0"}
        chat = pexpect.spawn(
            sys.executable,
            ["-m", "dgemma_cli", "chat", "-m", "nano", "--no-live", "--no-markdown"],
            env={**variables, "PROMPT_TOOLKIT_NO_CPR": "1"},
            encoding="utf-8",
            timeout=30,
        )

        def say(line: str) -> None:
            chat.expect_exact("\x1b[?2004h")  # the prompt waits
            chat.send(line + "\r")

        chat.expect(f"in the server with pid {server.process.pid}")
        say("say: warm words")
        chat.expect("2004lwarm words")
        say("/show")
        chat.expect("of 1,900 tokens")
        server.process.kill()
        server.process.wait()
        say("What is the capital of France?")
        chat.expect("The model is loaded here instead")
        chat.expect("Paris")
        chat.close()
