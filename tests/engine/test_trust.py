"""Kernels are relied on where they were seen to be right; otherwise something slower computes, and that is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest
import tiny
import torch
from tape import Tape
from torch import Tensor, nn

from dgemma_cli.engine import trouble, trust
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.trust import proven
from dgemma_cli.errors import NoDevice, UsageError
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.programs import Calls, Run


class Wrong(PlainOperations):
    def mlp(self, x: Tensor, module: nn.Module) -> Tensor:
        return -super().mlp(x, module)


class Breaks(PlainOperations):
    def mlp(self, x: Tensor, module: nn.Module) -> Tensor:
        raise RuntimeError("out of resource: shared memory,\nRequired: 200000")


class NoMemory(PlainOperations):
    def mlp(self, x: Tensor, module: nn.Module) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


class NoRecording(Tape):
    def record(self, work: Run) -> Run:
        raise RuntimeError("operation not permitted when stream is capturing")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is remembered."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "dgemma" / "kernels.json"


def fused(operations: PlainOperations | None = None, executor: Tape | None = None) -> FusedModel:
    return FusedModel(tiny.random_model(), operations or PlainOperations(), executor or Tape(), chunk=16)


def test_a_plain_model_needs_no_proof(file: Path) -> None:
    model = tiny.random_model()
    assert proven(model) is model
    assert not file.exists()


def test_it_is_compared_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    begun: list[str] = []
    model = fused()
    assert proven(model, told.append, begun.append) is model
    assert begun == ["a first time on this GPU: kernels are compiled, and compared with plain torch"]
    assert model.kernels == "torch reference, a tape, 0.0% from plain torch"
    assert isinstance(model.executor, Tape)
    (known,) = json.loads(file.read_text()).values()
    assert 0 <= known["network"] < 1e-5
    assert known["recorded"] is True

    monkeypatch.setattr(trust, "compare", lambda model: pytest.fail("compared again"))
    again = fused()
    assert proven(again, told.append, begun.append) is again
    assert again.kernels == model.kernels
    assert (len(begun), told) == (1, [])
    for other in (fused(), FusedModel(tiny.random_model(vocab=41), PlainOperations(), Tape(), chunk=16)):
        other.kernels = "others" if other.config == model.config else other.kernels
        with pytest.raises(pytest.fail.Exception, match="compared again"):
            proven(other)


@pytest.mark.parametrize("content", ["", "[1]", "\xff"])
def test_a_broken_file_is_written_anew(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content, encoding="latin-1")
    proven(fused())
    assert len(json.loads(file.read_text())) == 1


@pytest.mark.parametrize("entry", ["b", None, {"network": 0.1}, {"network": "x", "recorded": True}])
def test_a_broken_entry_counts_for_nothing(file: Path, entry: object) -> None:
    proven(fused())
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: entry, "another": None}))
    model = fused()
    proven(model)
    assert model.kernels.endswith("0.0% from plain torch")
    assert json.loads(file.read_text())[key]["recorded"] is True


def test_without_a_place_to_remember(file: Path) -> None:
    file.parent.write_text("no folder")
    model = fused()
    assert proven(model) is model


@pytest.mark.parametrize(
    ("operations", "why"),
    [
        (Wrong(), r"beside plain torch the network's outputs differ by \d+%"),
        (Breaks(), "RuntimeError: out of resource: shared memory, Required: 200000"),
    ],
)
def test_kernels_that_are_wrong_are_not_used(
    file: Path, monkeypatch: pytest.MonkeyPatch, operations: PlainOperations, why: str
) -> None:
    told: list[str] = []
    model = fused(operations)
    plain = proven(model, told.append)
    assert plain is model.origin
    assert not file.exists()
    (line,) = told
    assert line.startswith("slower: plain torch computes instead of Triton's kernels, since ")
    assert plain.kernels == "torch reference: " + line.partition("since ")[2]
    assert re.fullmatch(why, line.partition("since ")[2])
    expected = list(generate(tiny.random_model(), [1, 2], Options(seed=0, max_tokens=8)))
    assert [getattr(event, "ids", None) for event in generate(plain, [1, 2], Options(seed=0, max_tokens=8))] == [
        getattr(event, "ids", None) for event in expected
    ]

    monkeypatch.setenv("DGEMMA_KERNELS", "triton")
    with pytest.raises(UsageError, match="DGEMMA_KERNELS asks for Triton's kernels, but " + why):
        proven(fused(operations))


@pytest.mark.parametrize("wrong", [False, True])
def test_steps_that_cannot_be_recorded_are_launched_one_by_one(
    file: Path, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    told: list[str] = []
    if wrong:
        monkeypatch.setattr(trust, "recorded_as_called", lambda model: False)
    model = fused(executor=Tape() if wrong else NoRecording())
    why = "recorded ones differ" if wrong else "RuntimeError: operation not permitted when stream is capturing"
    model.kernels += ", experts of 2 layers in the host's memory"
    assert proven(model, told.append) is model
    assert told == [f"slower: steps are launched one by one, since {why}"]
    assert isinstance(model.executor, Calls)
    assert model.kernels == (
        f"torch reference, calls ({why}), experts of 2 layers in the host's memory, 0.0% from plain torch"
    )
    assert not model.new_cache().buffers.programs
    list(generate(model, [1, 2], Options(seed=0, max_tokens=8)))


def test_a_failed_recording_is_tried_again_and_the_network_not_compared(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    proven(fused(executor=NoRecording()))
    monkeypatch.setattr(trust, "compare", lambda model: pytest.fail("compared again"))
    model = fused(executor=NoRecording())
    assert proven(model, told.append, begin=told.append) is model
    assert isinstance(model.executor, Calls)
    (line,) = told
    assert line.startswith("slower: steps are launched one by one")

    for _ in range(2):  # a driver that can record; then this is remembered, too
        model = fused()
        assert proven(model, told.append, begin=told.append) is model
        assert model.kernels == "torch reference, a tape, 0.0% from plain torch"
        assert told == [line]
        monkeypatch.setattr(trust, "recorded_as_called", lambda model: pytest.fail("recorded again"))
    assert [known["recorded"] for known in json.loads(file.read_text()).values()] == [True]


def test_no_memory_for_a_comparison(file: Path) -> None:
    model = fused(NoMemory())
    assert proven(model) is model
    assert not file.exists()
    assert model.kernels.endswith("not compared with plain torch: no memory for it")


def test_a_device_that_does_not_recover(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*shape: int, **how: object) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    model = fused(Breaks())
    monkeypatch.setattr(trust, "_key", lambda model: "")
    monkeypatch.setattr(trouble, "torch", SimpleNamespace(zeros=gone))
    with pytest.raises(NoDevice, match="Triton's kernels broke off on cpu: RuntimeError: out of resource") as error:
        proven(model)
    assert error.value.hint == "Without Triton's kernels, slower: DGEMMA_KERNELS=reference"
