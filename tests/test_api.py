"""``dgemma_cli.load``: a model is made to fit where that was asked for, and what does not fit is told beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dgemma_cli
from dgemma_cli import api, memory
from dgemma_cli.errors import NoDevice, OutOfMemory, UsageError
from dgemma_cli.machine import Gpu, Machine
from dgemma_cli.weights.checkpoint import read_checkpoint
from dgemma_cli.weights.recipe import Recipe, recipe

NANO = Path(memory.__file__).parent / "nano"
GB = 10**9


def needs(packed: Recipe, kind: memory.Kind = "cpu") -> int:
    work = memory.Work(triton=False)
    found = memory.of_checkpoint(read_checkpoint(NANO), "float32", packed)
    return found.needs(found.config.max_context, kind, work=work).total


def cap() -> int:
    """Bytes under which nano fits with an 8-bit dense part, and not as it is stored."""
    assert needs(recipe(dense="8bit")) < needs(Recipe()) - 1000
    return needs(Recipe()) - 1000


def pretend(monkeypatch: pytest.MonkeyPatch, free: int, *gpus: int) -> None:
    """A machine with so many free bytes on the host and on each GPU, which asks of every model whether it fits."""
    cards = tuple(Gpu(n, "Fake", 99 * GB, room, (8, 9), "580", False, ()) for n, room in enumerate(gpus))
    monkeypatch.setattr(api, "TRIVIAL", 0)
    monkeypatch.setattr(api, "check_device", lambda device: None)
    machine = Machine(cards, 2, 99 * GB, free, "2.13", "13.0", "" if cards else "No driver.", "Install it.")
    monkeypatch.setattr(api, "look", lambda gpus_too: machine)


def test_a_slow_path_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from dgemma_cli.weights import loader

    def slow(*arguments: object, tell: Callable[[str], None], **_: object) -> None:
        tell("slower: plain torch computes")

    monkeypatch.setattr(loader, "load_model", slow)
    with pytest.warns(RuntimeWarning, match="slower: plain torch computes"):
        dgemma_cli.load("nano")


def test_a_size_packs_the_model_and_says_so() -> None:
    model = dgemma_cli.load("nano", dtype="float32", fit=f"{cap()}B")
    assert model.fit == "attention, mlp, self-conditioning, embedding int8"
    assert dgemma_cli.load("nano", dtype="float32", fit="16GB").fit == "as stored"


@pytest.mark.parametrize("fit", ["off", "auto"])
def test_what_does_not_fit_is_told_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch, fit: str) -> None:
    """On the CPU neither changes anything; the hint is what would."""
    pretend(monkeypatch, cap())
    with pytest.raises(OutOfMemory, match=r"nano needs .* are free on cpu\.$") as caught:
        dgemma_cli.load("nano", dtype="float32", fit=fit)
    assert "It fits with fit='" in caught.value.hint
    hinted = caught.value.hint.split("'")[1]
    monkeypatch.undo()
    assert dgemma_cli.load("nano", dtype="float32", fit=hinted).fit != "as stored"


def test_too_small_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutOfMemory, match=r"5\.0 MB of them allowed by fit") as caught:
        dgemma_cli.load("nano", fit="5MB")
    assert "dgemma check nano" in caught.value.hint


def test_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan for a card that is asked for by number; it is not loaded here."""
    pretend(monkeypatch, 64 * GB, 1000, needs(Recipe(), "cuda") - 1000)
    checkpoint = read_checkpoint(NANO)
    way = api._way("nano", checkpoint, "cuda:1", "float32", "auto", 8192)
    assert way is not None
    assert not way.as_stored
    for device, fit in (("cuda:0", "auto"), ("cuda", "off"), ("cuda:1", "off")):
        with pytest.raises(OutOfMemory, match=f"free on {device}") as caught:
            api._way("nano", checkpoint, device, "float32", fit, 8192)  # type: ignore[arg-type]
        assert ("fit='auto'" in caught.value.hint) == (device == "cuda:1")
    less = api._way("nano", checkpoint, "cuda:1", "float32", "off", 64)
    assert less is not None


def test_a_gpu_whose_memory_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 64 * GB)
    checkpoint = read_checkpoint(NANO)
    assert api._way("nano", checkpoint, "cuda", "float32", "off", 8192) is None
    with pytest.raises(NoDevice, match=r"free memory of cuda is not known: No driver\."):
        api._way("nano", checkpoint, "cuda", "float32", "auto", 8192)


@pytest.mark.parametrize(("fit", "context"), [("16", 8192), ("on", 8192), ("off", 0)])
def test_what_is_no_setting(fit: str, context: int) -> None:
    with pytest.raises(UsageError):
        dgemma_cli.load("nano", fit=fit, context=context)


def test_torch_comes_with_the_call() -> None:
    code = """
import json, sys, dgemma_cli
load, told = dgemma_cli.load, {}
for name, fit in (("nano", "5MB"), ("no such model", "auto"), ("nano", "on")):
    try:
        load(name, fit=fit)
    except dgemma_cli.DgemmaError as error:
        told[fit] = type(error).__name__
print(json.dumps([told, "torch" in sys.modules]))
load("nano", fit="16GB")
assert "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [{"5MB": "OutOfMemory", "auto": "ModelUnavailable", "on": "UsageError"}, False]
