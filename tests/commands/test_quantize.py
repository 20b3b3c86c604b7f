"""``dgemma quantize`` as users meet it: streams, exit codes, what is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from command_fixtures import Run

from dgemma_cli.__main__ import main
from dgemma_cli.weights import writer
from dgemma_cli.weights.shards import read_folder


@pytest.fixture
def dgemma(dgemma: Run) -> Run:
    """``dgemma quantize``."""
    return partial(dgemma, "quantize")


def test_nano(dgemma: Run, tmp_path: Path) -> None:
    """The model of the package in 8 and 4 bits still answers, and the report tells the errors of every layer."""
    target = tmp_path / "small"
    code, out, err = dgemma("nano", target, "--dense", "8bit", "--device", "cpu", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["size"] == sum(file.stat().st_size for file in target.glob("*.safetensors"))
    errors = {(row["layer"], row["part"]): row["error"] for row in report["errors"]}
    assert set(errors) == {(None, "embedding"), (None, "self-conditioning")} | {
        (layer, part) for layer in range(6) for part in ("experts", "attention", "mlp")
    }
    assert all(0.05 < error < 0.12 for (_, part), error in errors.items() if part == "experts")
    assert all(0.002 < error < 0.01 for (_, part), error in errors.items() if part != "experts")
    assert "experts nvfp4, attention and MLP int8, embedding int8" in err
    assert "layer 5" in err
    assert f"dgemma run -m {target}" in err
    assert {stored.dtype for stored in read_folder(target).values()} >= {"U8", "F8_E4M3", "I32"}
    assert main(["run", "-m", str(target), "--device", "cpu", "--seed", "1", "What is the capital of France?"]) == 0


def test_quiet(dgemma: Run, tmp_path: Path) -> None:
    assert dgemma("nano", tmp_path / "small", "--format", "int4", "--device", "cpu", "-q") == (0, "", "")
    assert (tmp_path / "small" / "config.json").exists()


def test_twice(dgemma: Run, tmp_path: Path) -> None:
    assert dgemma("nano", tmp_path / "small", "--device", "cpu", "-q")[0] == 0
    code, out, err = dgemma("nano", tmp_path / "small", "--device", "cpu")
    assert (code, out) == (2, "")
    assert "exists already" in err
    code, _, err = dgemma(tmp_path / "small", tmp_path / "smaller", "--format", "int4", "--device", "cpu")
    assert code == 2
    assert "nothing to quantise" in err
    assert not (tmp_path / "smaller").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing", "DST"], 3, "nothing"),
        (["nano", "DST", "--format", "int3"], 2, "int3"),
        (["nano", "DST", "--dense", "3bit"], 2, "3bit"),
        (["nano", "DST", "--device", "tpu"], 4, "tpu"),
        (["", "DST"], 3, "There is no model called ''"),
        (["nano", "missing/DST", "--device", "cpu"], 6, "no folder"),
    ],
)
def test_refusals(dgemma: Run, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    given = [str(tmp_path / each) if each.endswith("DST") else each for each in arguments]
    found, out, err = dgemma(*given)
    assert (found, out) == (code, "")
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_the_result_is_named_so_that_it_can_be_run(
    dgemma: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, named in (("nano", "./nano"), ("a b", "'./a b'"), (str(tmp_path / "c"), str(tmp_path / "c"))):
        assert f"is ready: dgemma run -m {named} " in dgemma("nano", folder, "--device", "cpu")[2]


def test_no_room(dgemma: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: Usage)
    code, _, err = dgemma("nano", tmp_path / "small", "--device", "cpu")
    assert code == 6
    assert "1.0 kB are free" in err
    assert list(tmp_path.iterdir()) == []


SLOW = """
import sys, time
from dgemma_cli.__main__ import main
from dgemma_cli.weights import repack
pack = repack.to_nvfp4
def slowly(*arguments, **named):
    print("packing", flush=True)
    time.sleep(0.2)
    return pack(*arguments, **named)
repack.to_nvfp4 = slowly
sys.exit(main(["quantize", "nano", sys.argv[1], "--device", "cpu", "-q"]))
"""


def test_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "small")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("packing")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
