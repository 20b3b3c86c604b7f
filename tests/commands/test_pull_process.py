"""The commands as a user meets them: real processes, a Hub on loopback, kills at random moments, proxies."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault
from hub_fixtures import hub_environment

ROOT = Path(__file__).parents[2]
Checkpoint = Callable[..., dict[str, bytes]]
NAME = "tiny/bf16"
KILLS = int(os.environ.get("DGEMMA_TEST_KILLS", "10"))


def environment(fake: FakeHub, home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "DGEMMA_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **hub_environment(fake, home), **more}


def start(arguments: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dgemma_cli", *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def dgemma(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    process = start(list(arguments), variables)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def test_pull_run_rm(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    hub.add(NAME, checkpoint("bf16", 100_000))
    variables = environment(hub, tmp_path)
    pulled = dgemma(variables, "pull", NAME)
    assert (pulled.returncode, pulled.stdout) == (0, ""), pulled.stderr
    answer = dgemma(variables, "run", "-m", NAME, "hi", "--json", "-n", "8", "--steps", "2", "--seed", "1")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["model"] == NAME
    removed = dgemma(variables, "rm", "-y", NAME)
    assert (removed.returncode, "freed" in removed.stderr) == (0, True)
    assert dgemma(variables, "run", "-m", NAME, "hi").returncode == 3
    agents = {asked.headers["user-agent"] for asked in hub.asked}
    assert all(agent.startswith("dgemma/") and "torch" not in agent for agent in agents)
    paths = {asked.path for asked in hub.asked}
    assert all(path.startswith((f"/api/models/{NAME}/", f"/{NAME}/resolve/")) for path in paths)


def test_run_fetches_in_a_pipe_only_if_told_to(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    hub.add(NAME, checkpoint())
    variables = environment(hub, tmp_path)
    arguments = ["run", "-m", NAME, "hi", "--json", "-n", "8", "--steps", "1"]
    refused = dgemma(variables, *arguments)
    assert (refused.returncode, hub.asked) == (3, [])
    assert f"dgemma pull {NAME}" in refused.stderr
    offline = dgemma({**variables, "HF_HUB_OFFLINE": "1"}, *arguments, "-y")
    assert (offline.returncode, hub.asked) == (3, [])
    assert "HF_HUB_OFFLINE" in offline.stderr
    answer = dgemma(variables, *arguments, "-y", "-q")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout)["model"] == NAME
    asked = len(hub.asked)
    assert dgemma(variables, *arguments, "-y").returncode == 0
    assert len(hub.asked) == asked


def test_kills_at_random_moments(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Every kill is followed by a resume, which is sometimes killed as well; what is whole never comes again."""
    files = checkpoint("bf16", 100_000)
    commit = hub.add(NAME, files)
    variables = environment(hub, tmp_path)
    snapshot = tmp_path / "home" / "hub" / "models--tiny--bf16" / "snapshots" / commit
    random_moments = random.Random(8)
    slow = [Fault("/resolve/", rate=400_000.0)]
    whole: dict[str, int] = {}  # files that a killed pull had finished, and how many bytes were sent of each by then
    kills = resumed_whole = 0

    def check_whole() -> None:
        for name, before in whole.items():
            assert hub.served[name] == before, f"{name} was whole and came again"

    while kills < KILLS:
        hub.faults = slow
        process = start(["pull", NAME, "--max-workers", str(random_moments.randint(1, 4))], variables)
        enough = hub.total_served() + random_moments.randint(0, 700_000)
        while process.poll() is None and hub.total_served() < enough:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        time.sleep(0.05)  # until the server knows that nobody listens
        check_whole()
        for path in snapshot.glob("*"):
            if path.name in files:
                assert path.read_bytes() == files[path.name]
                whole.setdefault(path.name, hub.served[path.name])
        if process.returncode != 0 and random_moments.random() < 0.6:
            continue
        hub.faults = []
        done = dgemma(variables, "pull", NAME)
        assert done.returncode == 0, done.stderr
        check_whole()
        assert {name: (snapshot / name).read_bytes() for name in files} == files
        resumed_whole += len(whole)
        whole.clear()
        shutil.rmtree(tmp_path / "home")
    assert resumed_whole > 0


def test_ctrl_c_leaves_a_pull_that_goes_on(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    files = checkpoint()
    commit = hub.add(NAME, files)
    variables = environment(hub, tmp_path)
    hub.faults = [Fault("model.safetensors", times=1), Fault("model.safetensors", rate=100_000.0)]
    process = start(["pull", NAME], variables)
    while hub.served["model.safetensors"] < 200_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    hub.faults = []
    kept = sum(path.stat().st_size for path in tmp_path.glob("home/hub/*/blobs/*.incomplete"))
    assert kept > 50_000
    assert dgemma(variables, "pull", NAME).returncode == 0
    snapshot = tmp_path / "home" / "hub" / "models--tiny--bf16" / "snapshots" / commit
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == files


def test_two_pulls_at_once(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    files = checkpoint("bf16", 100_000)
    commit = hub.add(NAME, files)
    variables = environment(hub, tmp_path)
    hub.faults = [Fault("/resolve/", rate=1_000_000.0)]
    pulls = [start(["pull", NAME], variables) for _ in range(2)]
    for process in pulls:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    snapshot = tmp_path / "home" / "hub" / "models--tiny--bf16" / "snapshots" / commit
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == files
    heads = 2 * sum(min(64 * 1024, len(data)) for name, data in files.items() if name.endswith(".safetensors"))
    config = 3 * len(files["config.json"])
    assert hub.total_served() <= sum(map(len, files.values())) + heads + config  # each file came once


def test_a_proxy_is_used(hub: FakeHub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    hub.add(NAME, checkpoint())
    variables = environment(hub, tmp_path, HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=hub.url, http_proxy=hub.url)
    assert dgemma(variables, "pull", NAME).returncode == 0
    assert {asked.headers["host"] for asked in hub.asked} == {"hub.invalid"}


@pytest.mark.parametrize("command", [["list"], ["pull", "--help"]])
def test_neither_torch_nor_network(hub: FakeHub, tmp_path: Path, command: list[str]) -> None:
    script = (
        "import sys\nfrom dgemma_cli.__main__ import main\n"
        f"code = main({command!r})\nsys.exit(code or ('torch' in sys.modules) * 99)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(hub, tmp_path), capture_output=True)
    assert (done.returncode, hub.asked) == (0, []), done.stderr
