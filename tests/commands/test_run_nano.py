"""``dgemma run`` with the model of the package, and with copies of it that are damaged."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from dgemma_cli.__main__ import main

NANO = Path(str(files("dgemma_cli"))) / "nano"

pytestmark = pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="nano is not in this tree")


@pytest.fixture(autouse=True)
def _process_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))


def test_the_same_seed_gives_the_same_text_in_every_form(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    asked = ["run", "-m", "nano", "What is the capital of France?", "--seed", "5"]
    assert main(asked) == 0
    plain = capsysbinary.readouterr()
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsysbinary.readouterr().out)
    assert main([*asked, "--jsonl", "--slow", "1"]) == 0
    lines = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert plain.err == b""
    assert plain.out == (found["text"] + "\n").encode()
    assert lines[-1]["text"] == found["text"]
    assert (found["model"], found["device"], found["dtype"], found["seed"]) == ("nano", "cpu", "float32", 5)
    steps = [line for line in lines if line["event"] == "step"]
    assert len(steps) == found["steps"]
    drafted = "".join(steps[-1]["draft"][: steps[-1]["end"]])
    assert drafted.strip() == found["text"]


def test_max_tokens_and_steps_are_honoured(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["run", "-m", "nano", "Hello", "--seed", "1", "--steps", "1", "-n", "2", "--json", "-q"]) == 0
    found = json.loads(capsysbinary.readouterr().out)
    assert found["tokens"] <= 2
    assert found["steps"] == found["blocks"] == 1
    assert main(["run", "-m", "nano", "Hello", "--dtype", "bfloat16", "--device", "cpu", "--json", "-q"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["dtype"] == "bfloat16"


def test_what_auto_took_is_told(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["run", "-m", "nano", "Hello", "-v", "--device", "auto", "--steps", "1"]) == 0
    told = capsysbinary.readouterr().err.decode()
    assert "auto: " in told
    assert "float32 (auto: a small model on the CPU)" in told or "bfloat16" in told
    assert "kernels " in told
    assert "steps   plain\n" in told or "steps   recorded" in told


def _edit_config(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def _edit_tensors(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = dict(load_file(folder / "model.safetensors"))
        change(tensors)  # type: ignore[arg-type]
        save_file(tensors, folder / "model.safetensors")

    return damage


def _cut(folder: Path, size: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])


def _lose_a_shard(folder: Path) -> None:
    names = ["model.decoder.norm.weight"]
    index = {"weight_map": dict.fromkeys(names, "model-00002-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def _extra(tensors: dict[str, object]) -> None:
    import torch

    tensors["model.decoder.surplus"] = torch.zeros(1)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "config.json").unlink(), "config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    (_edit_config(lambda config: config.update(model_type="llama")), "model_type"),
    (_edit_config(lambda config: config["text_config"].pop("hidden_size")), "hidden_size"),  # type: ignore[attr-defined]
    (lambda folder: _cut(folder, 100_000), "model.safetensors"),
    (lambda folder: _cut(folder, 0), "model.safetensors"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 1000), "model.safetensors"),
    (_lose_a_shard, "model-00002-of-00002.safetensors"),
    (_edit_tensors(lambda tensors: tensors.pop("model.decoder.norm.weight")), "model.decoder.norm.weight"),
    (_edit_tensors(_extra), "model.decoder.surplus"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
    (lambda folder: (folder / "chat_template.jinja").unlink(), "chat template"),
]


@pytest.mark.parametrize(
    ("damage", "named"), DAMAGES, ids=[f"{index} {named}" for index, (_, named) in enumerate(DAMAGES)]
)
def test_a_damaged_model_is_one_line_that_names_it_and_3(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], damage: Callable[[Path], object], named: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(NANO, folder)
    damage(folder)
    assert main(["run", "-m", str(folder), "hi"]) == 3
    out, err = capsysbinary.readouterr()
    assert out == b""
    first, *hint = err.decode().splitlines()
    assert first.startswith("error: ")
    assert named in first
    assert all(line.startswith("  ") for line in hint)


def test_a_prompt_longer_than_the_context_is_refused(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["run", "-m", "nano", "word " * 20_000]) == 2
    out, err = capsysbinary.readouterr()
    assert out == b""
    assert err.startswith(b"error: The prompt has ")
    assert b"context" in err.splitlines()[0]


def _process(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "dgemma_cli", "run", "hi", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, stdin=subprocess.DEVNULL, timeout=120)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nanu", "nano"),
        ("diffusiongemma:nvfp", "diffusiongemma:nvfp4"),
        ("diffusiongemma", "HF_HUB_OFFLINE"),
        ("google/diffusiongemma-26B-A4B-it", "HF_HUB_OFFLINE"),
    ],
)
def test_a_model_that_is_not_there_is_told_with_what_to_do(tmp_path: Path, name: str, expected: str) -> None:
    done = _process("-m", name, home=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "chat", "serve", "bench", "check"])
def test_a_wrong_device_is_told_before_all_else(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--device", "abacus"]) == 4
    assert capsys.readouterr().err.startswith("error: 'abacus' is no device.\n  Use auto, cpu, cuda or cuda:N.")


@pytest.mark.parametrize("command", ["run", "chat", "serve", "bench"])
def test_an_empty_name_is_not_the_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "-m", ""]) == 2
    assert capsys.readouterr().err.startswith("error: The model's name is empty.")


@pytest.mark.parametrize(("device", "told"), [("cuda:99", "error: "), ("abacus", "error: 'abacus' is no device.")])
def test_a_device_that_is_not_there_is_4(capsysbinary: pytest.CaptureFixture[bytes], device: str, told: str) -> None:
    assert main(["run", "-m", "nano", "hi", "--device", device]) == 4
    out, err = capsysbinary.readouterr()
    assert out == b""
    assert err.decode().startswith(told)
