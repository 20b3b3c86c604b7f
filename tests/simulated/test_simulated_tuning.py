"""``dgemma tune`` on a simulated GPU that is not the current one, with Triton's kernels in their interpreter: what it
measures is nothing, but all that it does is done, and held to CUDA's rules.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gpu_weights
import pytest
import torch
from command_fixtures import Run
from sim_machine import Machine
from test_simulated_loops import PROMPT

from dgemma_cli.commands import loading
from dgemma_cli.engine import tiles, tuning
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.tiles import settle_tiles, tiles_in_use
from dgemma_cli.kernels import attention, cuts, fast
from dgemma_cli.kernels import tiles as product_tiles
from dgemma_cli.kernels.cuts import Cut
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.kernel_uses import Use, uses_of
from dgemma_cli.model.programs import Graphs


@pytest.fixture
def machine(gpus: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """With nothing remembered, a small model to be loaded, and few tiles to be measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cuts, "_settled", {})
    monkeypatch.setattr(attention, "SPLITS", (1, 2))
    monkeypatch.setattr(attention, "other_tiles", lambda dim, card: [])
    monkeypatch.setattr(tuning, "_LAUNCHES", 2)
    monkeypatch.setattr(tuning, "_ROUNDS", 1)
    monkeypatch.setattr(loading, "load_session", load)
    measure(monkeypatch, "gate_up", "down", "dense", "attention")
    return gpus


def measure(monkeypatch: pytest.MonkeyPatch, *kernels: str) -> None:
    """A use of each kernel."""

    def some(model: FusedModel) -> list[Use]:
        return list({use.kernel: use for use in uses_of(model) if use.kernel in kernels}.values())

    monkeypatch.setattr(tuning, "uses_of", some)
    monkeypatch.setattr(tiles, "uses_of", some)


def load(name: str, device: str, *_: object) -> SimpleNamespace:
    model = fused(device)
    settle_tiles(model)
    return SimpleNamespace(name=name, model=model)


def fused(device: str) -> FusedModel:
    sizes = replace(
        gpu_weights.TINY,
        layers=gpu_weights.TINY.layers[1:],
        canvas_length=8,
        sliding_window=6,
        intermediate_size=64,
        num_experts=2,
        top_k_experts=1,
    )
    model = gpu_weights.random_model(sizes, "nvfp4+8bit", torch.device(device), torch.bfloat16)
    return FusedModel(model, fast.FastOperations(), Graphs(model.device), chunk=16)


def times(monkeypatch: pytest.MonkeyPatch, made_up: Callable[[int], list[float]]) -> None:
    """In the place of those that were measured, which are to be true ones."""
    right = tuning.milliseconds

    def milliseconds(device: torch.device, parts: Sequence[Callable[[], object]], repetitions: int) -> list[float]:
        assert all(taken > 0 for taken in right(device, parts, repetitions))
        return made_up(len(parts))

    monkeypatch.setattr(tuning, "milliseconds", milliseconds)


def test_tune(machine: Machine, dgemma: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measure, remember, load again, write."""
    times(monkeypatch, lambda count: [2.0] * (count - 1) + [1.0])
    code, out, err = dgemma("tune", "-m", "tiny", "--device", "cuda:1", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["model"], told["device"], told["card"]) == ("tiny", "cuda:1", "Simulated GPU")
    assert told["after_ms"] == pytest.approx(told["before_ms"] / 2, abs=2e-3)
    assert {"_gate_up", "_down", "_linear", "_attend_tile", "_merge"} <= machine.launched

    model = load("tiny", "cuda:1").model
    fastest = {use.name: use.cuts[-1] for use in tuning.uses_of(model)}
    assert len(fastest) == 4
    assert tiles_in_use(model) == fastest == {row["use"]: tuple(row["tile"]) for row in told["kernels"]}
    assert model.kernels == f"Triton, CUDA graphs, {len(fastest)} of {len(fastest)} tiles measured on this card"
    asked: set[tuple[str, Cut | None]] = set()
    right = cuts.cut_of

    def cut_of(use: str, device: torch.device) -> Cut | None:
        asked.add((use, right(use, device)))
        return right(use, device)

    for module in (attention, product_tiles):
        monkeypatch.setattr(module, "cut_of", cut_of)
    list(generate(model, PROMPT, Options(max_tokens=8, steps=1, seed=1)))
    assert set(fastest.items()) <= asked

    measure(monkeypatch, "down")
    code, out, err = dgemma("tune", "-m", "tiny", "--device", "cuda:1")
    assert code == 0, err
    assert out.splitlines()[0].split() == ["KERNEL", "A", "STEP", "BEFORE", "AFTER", "TILE"]
    (down,) = [line for line in out.splitlines() if line.startswith("down nvfp4 64x32 by 16")]
    assert down.endswith("64 x 32, 4 warps, 3 stages")
    assert out.splitlines()[-1].startswith("a step's products and attention: ")
    assert "Remembered." in err


def test_interrupted(machine: Machine, dgemma: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was remembered before is left as it is."""
    measure(monkeypatch, "down")
    times(monkeypatch, lambda count: [2.0] * (count - 1) + [1.0])
    assert dgemma("tune", "-m", "tiny", "--device", "cuda:1").code == 0
    (file,) = (tmp_path / "cache").rglob("tiles.json")
    before = file.read_text()

    def interrupt(count: int) -> list[float]:
        signal.raise_signal(signal.SIGINT)
        return [1.0] * count

    times(monkeypatch, interrupt)
    assert dgemma("tune", "-m", "tiny", "--device", "cuda:1").code == 130
    assert file.read_text() == before
