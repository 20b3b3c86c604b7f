"""Loading goes straight into place: bounded memory, progress in bytes, and a clean end when it is interrupted."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_synthetic
import pytest
import raw_files
import synthetic_tensors
import torch

from dgemma_cli.errors import CheckpointError
from dgemma_cli.weights import loader, reader
from dgemma_cli.weights.loader import load_model


@pytest.mark.parametrize("form", ["bf16", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_small_pieces_give_the_same_weights(
    tmp_path: Path, form: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = raw_files.checkpoint(tmp_path, form, most=100_000)
    whole = load_model(folder, "cpu", dtype).state_dict()
    monkeypatch.setattr(reader, "_PIECE", 24)  # so that matrices and rows are cut
    monkeypatch.setattr(reader, "_BATCH", 1000)
    cut = load_model(folder, "cpu", dtype).state_dict()
    assert whole.keys() == cut.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor.view(torch.uint8), cut[name].view(torch.uint8)), name


def test_progress_counts_the_bytes_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_BATCH", 20_000)
    folder = raw_files.checkpoint(tmp_path, "bf16", most=100_000)
    calls: list[tuple[int, int]] = []
    load_model(folder, "cpu", "float32", lambda done, total: calls.append((done, total)))
    stored = sum(len(data) for name, (_, _, data) in raw_files.all_tensors(folder) if "vision" not in name)
    assert {total for _, total in calls} == {stored}
    done = [done for done, _ in calls]
    assert done == sorted(done)
    assert done[-1] == stored
    assert len(done) > 3


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_BATCH", 2000)
    folder = raw_files.checkpoint(tmp_path, "bf16")
    threads, files = threading.active_count(), open_files()
    calls = []

    def interrupt(done: int, total: int) -> None:
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_model(folder, "cpu", "float32", interrupt)
    assert len(calls) == 1
    assert threading.active_count() == threads
    assert open_files() == files


def test_a_parameter_that_nothing_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole in our own layout must not leave random numbers in the model."""

    def forget(folder: Path) -> Any:
        checkpoint = read(folder)
        slots = [slot for slot in checkpoint.plan.slots if not slot.tensor.endswith("1.self_attn.v_proj.weight")]
        return replace(checkpoint, plan=replace(checkpoint.plan, slots=slots))

    read = loader.read_checkpoint
    monkeypatch.setattr(loader, "read_checkpoint", forget)
    with pytest.raises(CheckpointError, match=r"layers\.1\.self_attn\.qkv_proj\.weight are in the checkpoint"):
        load_model(raw_files.checkpoint(tmp_path), "cpu", "float32")


PEAK = """
import pathlib, resource, sys
from dgemma_cli.weights.loader import load_model
import dgemma_cli.kernels.packed

def now():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

before = now()
model = load_model(pathlib.Path(sys.argv[1]), "cpu", sys.argv[2])
held = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would count the parent of this process too
print(held, int(status.split("VmHWM:")[1].split()[0]) * 1024 - before)
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_peak_is_what_stays(tmp_path: Path, dtype: str) -> None:
    """260 MB of weights: the process grows by them and the pieces being read, never by a second copy."""
    config = synthetic_tensors.tiny()
    config["text_config"] |= {"vocab_size": 2**21}
    make_synthetic.write(tmp_path, config, "bf16")
    run = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path), dtype], capture_output=True, text=True, check=True)
    held, grown = map(int, run.stdout.split())
    assert held > 250e6
    assert held <= grown < held + 180e6
