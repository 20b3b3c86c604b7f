"""What else runs on a GPU, on a simulated one: loading and packing, experts in the host's memory, looking at a model,
commands; and a whole model on Triton's kernels, in their interpreter.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gpu_weights
import pytest
import raw_files
import tiny
import torch
from command_fixtures import Run
from sim_machine import Machine
from sim_order import Race
from test_simulated_loops import PROMPT, asked, plain, recorded, told
from torch import Tensor

import dgemma_cli
from dgemma_cli import machine
from dgemma_cli.engine import probe, rates, trust
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.in_use import in_use
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.profile import profile
from dgemma_cli.kernels import fast
from dgemma_cli.kernels.offload import CudaCopier
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls, Graphs
from dgemma_cli.weights.loader import load_model
from dgemma_cli.weights.random import random_model
from dgemma_cli.weights.recipe import recipe
from dgemma_cli.weights.scheme import Scheme

FORMATS = ["bf16", "nvfp4-redhat", "int4", "fp8", "nvfp4-8bit"]


@pytest.fixture
def found(gpus: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """The GPUs as dgemma finds them, by torch; with torch's operations in the place of Triton's, and no memory of an
    earlier comparison.
    """
    monkeypatch.setattr(machine, "torch_build", lambda: ("2.13.0+cu130", "13.0"))
    monkeypatch.setattr(machine, "_driver_is_there", lambda: True)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(fast, "FastOperations", PlainOperations)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return gpus


def bits(model: Model) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().cpu().reshape(-1).view(torch.uint8) for name, tensor in named}


def assert_same(found: Model, expected: Model) -> None:
    mine, theirs = bits(found), bits(expected)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format(gpus: Machine, tmp_path: Path, form: str) -> None:
    folder = raw_files.checkpoint(tmp_path, form)
    model, expected = (load_model(folder, device, "float32") for device in ("cuda:1", "cpu"))
    assert model.kernels == "torch reference: the dtype is float32, not bfloat16"
    assert_same(model, expected)
    options = asked(max_tokens=1, steps=2, stability=9)
    assert told(list(generate(model, PROMPT, options))) == told(list(generate(expected, PROMPT, options)))


@pytest.mark.parametrize(("experts", "dense"), [(None, "8bit"), ("nvfp4", "4bit")])
def test_packed_on_the_gpu(gpus: Machine, tmp_path: Path, experts: str | None, dense: str) -> None:
    folder = raw_files.checkpoint(tmp_path, "bf16")
    how = recipe(experts=experts, dense=dense)
    model, expected = (load_model(folder, device, "float32", recipe=how) for device in ("cuda:1", "cpu"))
    assert_same(model, expected)


def offloaded(folder: Path) -> Iterator[tuple[Model, Model]]:
    """Models that are to write the same, the second with experts of its last layers in the host's memory."""
    for dtype in ("float32", "bfloat16"):
        yield load_model(folder, "cuda:1", dtype), load_model(folder, "cuda:1", dtype, offloaded=3)


def deep(folder: Path) -> Path:
    kinds = ["sliding_attention", "full_attention"] * 2
    return raw_files.checkpoint(folder, "bf16", num_hidden_layers=4, layer_types=kinds)


def test_experts_in_the_host_s_memory(found: Machine, tmp_path: Path) -> None:
    for whole, model in offloaded(deep(tmp_path)):
        assert model.kernels.endswith("experts of 3 layers in the host's memory")
        options = asked(max_tokens=17, steps=2)
        assert told(list(generate(model, PROMPT, options))) == told(list(generate(whole, PROMPT, options)))


@pytest.mark.parametrize("what", ["wait", "begin"])
def test_copies_of_experts_that_nobody_waits_for(
    planted: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begin = CudaCopier.begin
    if what == "wait":
        monkeypatch.setattr(CudaCopier, "wait", lambda copier, ticket: None)
    else:
        monkeypatch.setattr(CudaCopier, "begin", lambda copier, pairs, after: begin(copier, pairs, torch.cuda.Event()))
    _, model = next(offloaded(deep(tmp_path)))
    with pytest.raises(Race):
        list(generate(model, PROMPT, asked()))


def test_looking_at_a_model(gpus: Machine) -> None:
    """On a GPU that is not the current one."""
    model, expected, options = plain("cuda:1"), plain("cpu"), asked(max_tokens=8)
    assert probe.weigh(model) == probe.weigh(expected)
    assert probe.experts_used(model, PROMPT, options) == probe.experts_used(expected, PROMPT, options)
    assert probe.experts_used(recorded("cuda:1"), PROMPT, options) is None
    peak = probe.Peak(model.device)
    list(generate(model, PROMPT, options))
    assert peak.read() > in_use(model.device)["device"] > 0
    assert probe.free_memory("cuda:1") < 79 * 10**9
    seconds, steps = profile(model, PROMPT, options)
    assert steps == profile(expected, PROMPT, options)[1]
    assert all(seconds[part] > 0 for part in ("attention", "experts", "router", "norms", "head", "sampling"))
    assert profile(recorded("cuda:1"), PROMPT, options)[1] == steps
    assert rates.matmul_rate(model.device, torch.bfloat16) > 0
    assert rates.bandwidth(model.device, most=4096) > 0
    random = random_model(tiny.config(), Scheme(), "cuda:1", torch.float32)
    assert random.device == torch.device("cuda", 1)


def test_load(found: Machine, tmp_path: Path) -> None:
    model = dgemma_cli.load(str(raw_files.checkpoint(tmp_path, "bf16")), "cuda", "bfloat16", fit="2GB")
    assert (model.fit, model.device) == ("as stored", torch.device("cuda", 0))
    assert "CUDA graphs" in model.kernels


@pytest.mark.parametrize(("dtype", "steps"), [("float32", "plain"), ("bfloat16", "recorded (CUDA graphs)")])
def test_run(found: Machine, dgemma: Run, monkeypatch: pytest.MonkeyPatch, dtype: str, steps: str) -> None:
    monkeypatch.setattr(trust, "proven", lambda model, *_, **__: model)  # see ``test_load``
    words = "run", "-m", "nano", "Hello", "--seed", "1", "-n", "8"
    expected = json.loads(dgemma(*words, "--json", "--device", "cpu", "--dtype", "float32").out)
    code, out, err = dgemma(*words, "-v", "--device", "cuda:1", "--dtype", dtype)
    assert (code, out.strip()) == (0, expected["text"])
    assert "device  cuda:1 (as asked)" in err
    assert f"steps   {steps}\n" in err
    if dtype == "float32":
        told = json.loads(dgemma(*words, "--json", "--dtype", dtype).out)
        assert (told["device"], told["text"]) == ("cuda", expected["text"])


def test_a_gpu_that_is_not_there(found: Machine, dgemma: Run) -> None:
    code, _, err = dgemma("run", "-m", "nano", "Hello", "--device", "cuda:2")
    assert (code, err.splitlines()[0]) == (4, "error: There is no cuda:2: 2 CUDA devices are visible.")


def test_check_finds_the_gpus(found: Machine, dgemma: Run) -> None:
    assert "cuda:1   Simulated GPU, 80.0 GB, 79.0 GB free" in dgemma("check", "nano").out


def on_kernels(device: str) -> list[object]:
    sizes = replace(
        gpu_weights.TINY,
        layers=gpu_weights.TINY.layers[1:],
        canvas_length=8,
        sliding_window=6,
        intermediate_size=32,
        num_experts=2,
        top_k_experts=1,
    )
    model = gpu_weights.random_model(sizes, "nvfp4", torch.device(device), torch.bfloat16)
    executor = Calls() if device == "cpu" else Graphs(model.device)
    fused = FusedModel(model, fast.FastOperations(), executor, chunk=16)
    return told(list(generate(fused, PROMPT, Options(max_tokens=9, steps=1, seed=1))))


@pytest.fixture
def on_the_cpu() -> list[object]:
    """Before there are GPUs."""
    pytest.importorskip("triton")
    return on_kernels("cpu")


def test_a_whole_model_on_triton_s_kernels(on_the_cpu: list[object], gpus: Machine) -> None:
    """Recorded, on a GPU that is not the current one: what the same kernels write on the CPU when they are called."""
    assert on_kernels("cuda:1") == on_the_cpu
    assert {"_advance", "_attend_tile", "_combine", "_down", "_draw", "_gate_up", "_route"} <= gpus.launched
