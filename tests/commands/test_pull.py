"""``dgemma pull`` in this process: plans, JSON, and every error of the table with its exit code and its hint."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from command_fixtures import Run
from fake_hub import TOKEN, FakeHub, Fault
from huggingface_hub import constants

from dgemma_cli.catalog import cache, download

Checkpoint = Callable[..., dict[str, bytes]]
NAME = "tiny/bf16"


def test_the_plan_then_the_model(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint())
    planned = dgemma("pull", NAME, "--dry-run")
    assert planned.code == 0
    assert "to fetch" in planned.out
    assert "free in" in planned.out
    assert "with 4,096 tokens of context" in planned.out
    assert planned.err == ""
    assert not cache.root().exists()
    pulled = dgemma("pull", NAME)
    assert (pulled.code, pulled.out) == (0, "")
    assert f"dgemma run -m {NAME}" in pulled.err
    assert "all of it is here" in dgemma("pull", NAME).err


def test_json_has_the_same_figures_before_and_after(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    files = checkpoint()
    commit = hub.add(NAME, files)
    before = json.loads(dgemma("pull", NAME, "--dry-run", "--json").out)
    assert (before["commit"], before["size"]) == (commit, sum(map(len, files.values())))
    assert before["to_fetch"] == before["size"]
    assert {file["name"]: file["size"] for file in before["files"]} == {name: len(data) for name, data in files.items()}
    quiet = dgemma("pull", NAME, "--json", "-q")
    assert quiet.err == ""
    after = json.loads(quiet.out)
    assert after["complete"]
    assert Path(after["folder"], "config.json").exists()


def test_revisions(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    commit = hub.add(NAME, checkpoint(seed=1), revision="v1")
    hub.add(NAME, checkpoint(seed=0))
    for arguments in ([NAME, "--revision", "v1"], [f"{NAME}@v1"], [f"{NAME}@{commit}"]):
        assert json.loads(dgemma("pull", *arguments, "--dry-run", "--json").out)["commit"] == commit
    both = dgemma("pull", f"{NAME}@v1", "--revision", "v1")
    assert (both.code, "names a revision" in both.err) == (2, True)


def test_another_cache(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, tmp_path: Path) -> None:
    hub.add(NAME, checkpoint())
    pulled = dgemma("pull", NAME, "--cache-dir", str(tmp_path / "disk"))
    assert pulled.code == 0
    assert not cache.root().exists()
    assert "tiny/bf16" in dgemma("list", "--cache-dir", str(tmp_path / "disk")).out
    assert "tiny/bf16" not in dgemma("list").out
    folder = pulled.err.split("dgemma run -m ")[1].split(' "')[0]
    assert (Path(folder) / "model.safetensors").exists()


def test_one_worker_is_enough(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint("bf16", 100_000))
    assert dgemma("pull", NAME, "--max-workers", "1", "-q").code == 0
    assert dgemma("pull", NAME, "--max-workers", "0").code == 2


@pytest.mark.parametrize("arguments", [["nano"], [NAME, "--dry-run", "-q"]])
def test_contradictions_are_usage_errors(hub: FakeHub, dgemma: Run, arguments: list[str]) -> None:
    assert dgemma("pull", *arguments).code == 2
    assert hub.asked == []


def test_a_folder_of_that_name_does_not_stand_in_the_way(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    hub.add(NAME, checkpoint())
    assert dgemma("pull", NAME, "-q").code == 0


# Every row of the table of errors: exit code, what the message tells, what the hint tells.


def test_not_downloaded_and_offline(hub: FakeHub, dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = dgemma("run", "-m", NAME, "hi")
    assert (plain.code, plain.out) == (3, "")
    assert f"{NAME} is not downloaded" in plain.err
    assert f"dgemma pull {NAME}" in plain.err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for arguments in (["run", "-m", NAME, "hi"], ["pull", NAME]):
        offline = dgemma(*arguments)
        assert offline.code == 3
        assert "HF_HUB_OFFLINE" in offline.err
        assert f"dgemma pull {NAME}" in offline.err
    assert hub.asked == []


def test_the_hub_cannot_be_reached(hub: FakeHub, dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    failed = dgemma("pull", NAME)
    assert failed.code == 7
    assert "The Hub at http://127.0.0.1:9 cannot be reached" in failed.err
    assert "proxy" in failed.err


def test_a_silent_hub(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, checkpoint())
    monkeypatch.setattr(download, "_TRIES", 2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.faults = [Fault("tokenizer.json", silent=True)]
    failed = dgemma("pull", NAME)
    assert failed.code == 7
    assert "does not answer in time" in failed.err
    assert "goes on where it stopped" in failed.err


def test_something_else_answers(hub: FakeHub, dgemma: Run) -> None:
    hub.faults = [Fault("/api/", status=200)]
    failed = dgemma("pull", NAME)
    assert (failed.code, "is not a Hub" in failed.err, "HF_ENDPOINT" in failed.err) == (7, True, True)


def test_an_incomplete_model(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint("bf16", 100_000))
    hub.faults = [Fault("model-00007", times=1), Fault("model-00007", status=404)]  # the plan's look goes well
    failed = dgemma("pull", NAME, "--max-workers", "1")
    assert failed.code == 3
    assert "gone from the Hub" in failed.err
    run = dgemma("run", "-m", NAME, "hi")
    assert run.code == 3
    assert "11 of 12 files" in run.err
    assert f"dgemma pull {NAME}" in run.err
    assert "11 of 12 files" in dgemma("list").out


def test_a_gated_model(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, checkpoint())
    repository = hub.repositories[NAME]
    repository.gated = True
    stranger = dgemma("pull", NAME)
    assert stranger.code == 3
    assert "gated, and you are not logged in" in stranger.err
    assert f"{hub.url}/{NAME}" in stranger.err
    assert "hf auth login" in stranger.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    repository.accepted = False
    known = dgemma("pull", NAME)
    assert known.code == 3
    assert "gated, and your account has no access" in known.err
    assert f"{hub.url}/{NAME}" in known.err
    repository.accepted = True
    assert dgemma("pull", NAME).code == 0


def test_a_private_model(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, checkpoint())
    hub.repositories[NAME].private = True
    stranger = dgemma("pull", NAME)
    assert (stranger.code, "or it is private" in stranger.err, "hf auth login" in stranger.err) == (3, True, True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert dgemma("pull", NAME).code == 0


def test_a_token_that_is_refused(hub: FakeHub, dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    failed = dgemma("pull", NAME)
    assert (failed.code, "does not accept your token" in failed.err, "hf auth login" in failed.err) == (3, True, True)
    assert "hf_old" not in failed.err


def test_a_wrong_repository_has_near_names(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, checkpoint())
    for token in ("", TOKEN):
        monkeypatch.setenv("HF_TOKEN", token)
        failed = dgemma("pull", "tiny/bf61")
        assert failed.code == 3
        assert "no model tiny/bf61" in failed.err
        assert f"Did you mean {NAME}?" in failed.err
    near = dgemma("pull", "nvidia/diffusiongemma-26B-A4B-NVFP4")
    assert "nvidia/diffusiongemma-26B-A4B-it-NVFP4" in near.err


def test_a_wrong_revision_has_near_names(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint())
    failed = dgemma("pull", f"{NAME}@mian")
    assert failed.code == 3
    assert "no revision 'mian'" in failed.err
    assert f"Did you mean {NAME}@main?" in failed.err


def test_a_name_that_is_none(hub: FakeHub, dgemma: Run) -> None:
    failed = dgemma("pull", "diffusiongema:int4")
    assert (failed.code, "Did you mean diffusiongemma:int4" in failed.err) == (3, True)
    assert hub.asked == []


def test_a_full_disk_before_the_first_byte(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, checkpoint())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage(0, 0, 5))
    for arguments in (["pull", NAME], ["pull", NAME, "--dry-run"]):
        failed = dgemma(*arguments)
        assert failed.code == 6
        assert re.search(r"needs 67\.\d MB of disk, 5 B are free", failed.err)
        assert "--cache-dir" in failed.err
    assert not cache.root().exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_while_it_is_written(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    hub.add(NAME, checkpoint())

    def full(_source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(Path, "replace", full)
    failed = dgemma("pull", NAME)
    assert failed.code == 6
    assert "is full" in failed.err
    assert "HF_HOME" in failed.err


def test_a_cache_that_cannot_be_written(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, checkpoint())
    (tmp_path / "file").write_text("")
    failed = dgemma("pull", NAME, "--cache-dir", str(tmp_path / "file"))
    assert failed.code == 6
    assert "cannot be written" in failed.err


@pytest.mark.parametrize(
    ("fault", "code", "message", "hint"),
    [
        (Fault("/api/", status=503), 7, "failed with status 503", "goes on where it stopped"),
        (Fault("/api/", status=429, headers={"Retry-After": "30"}), 7, "too often (429)", "in 30 s"),
        (Fault("/api/", status=403), 3, "forbids your account", "hf auth login"),
        (Fault("/api/", status=401), 3, "or it is private", "hf auth login"),
        (Fault("tokenizer.json", status=500), 7, "failed with status 500", f"dgemma pull {NAME}"),
        (Fault("tokenizer.json", status=429), 7, "too often (429)", f"dgemma pull {NAME}"),
        (Fault("tokenizer.json", status=404), 3, "gone from the Hub", f"dgemma pull {NAME}"),
        (Fault("tokenizer.json", corrupt=True), 3, "tokenizer.json is corrupt", f"dgemma pull {NAME}"),
        (Fault("tokenizer.json", short=7), 3, "should have", f"dgemma pull {NAME}"),
        (Fault("tokenizer.json", cut=0), 7, "cannot be reached", "goes on where it stopped"),
    ],
    ids=lambda value: f"{value.path}-{value.status}" if isinstance(value, Fault) else "",
)
def test_faults_of_the_hub(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, fault: Fault, code: int, message: str, hint: str
) -> None:
    hub.add(NAME, checkpoint())
    hub.faults = [fault]
    failed = dgemma("pull", NAME)
    assert (failed.code, failed.out) == (code, "")
    assert message in failed.err
    assert hint in failed.err


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("../evil.txt", b"x", "leaves its folder"),
        ("config.json", b'{"model_type": "llama"}', "model_type is 'llama'"),
    ],
)
def test_repositories_that_are_refused(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, name: str, data: bytes, message: str
) -> None:
    hub.add(NAME, {**checkpoint(), name: data})
    failed = dgemma("pull", NAME)
    assert (failed.code, message in failed.err) == (3, True)
    assert hub.served["model.safetensors"] == 0


def test_pickles_are_refused_by_name(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    files = checkpoint()
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.add(NAME, files)
    failed = dgemma("pull", NAME)
    assert (failed.code, "pytorch_model.bin, which can run code" in failed.err) == (3, True)


# What goes over the wire


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = checkpoint()
    hub.add(NAME, files)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with FakeHub() as elsewhere:
        elsewhere.add(NAME, files)
        hub.faults = [Fault("model.safetensors", redirect=elsewhere.url.replace("127.0.0.1", "localhost"))]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        assert dgemma("pull", NAME).code == 0
        assert elsewhere.asked
        assert all("authorization" not in asked.headers for asked in elsewhere.asked)
    assert all(asked.headers["authorization"] == f"Bearer {TOKEN}" for asked in hub.asked)
