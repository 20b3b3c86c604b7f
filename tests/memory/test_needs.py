"""Predicted memory against the memory that is taken."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import make_synthetic
import pytest
import raw_files
import synthetic_tensors
import torch
from synthetic_tensors import FORMATS, FULL

from dgemma_cli import memory
from dgemma_cli.errors import CheckpointError
from dgemma_cli.model.cache import SLACK, KVCache
from dgemma_cli.model.config import ModelConfig, read_json
from dgemma_cli.model.model import Model
from dgemma_cli.model.static_cache import Pool, StaticCache
from dgemma_cli.weights.loader import load_model
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK
from dgemma_cli.weights.scheme import read_scheme

OURS = {
    "bf16": "diffusiongemma:bf16",
    "nvfp4": "diffusiongemma:nvfp4",
    "nvfp4-redhat": "diffusiongemma:nvfp4-redhat",
    "int4": "diffusiongemma:int4",
    "fp8": "diffusiongemma:fp8",
}


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("diffusiongemma:nvfp4", 17.67), ("diffusiongemma:nvfp4-redhat", 16.90), ("diffusiongemma:int4", 16.08)],
)
def test_published_weights(name: str, gigabytes: float) -> None:
    found = memory.of_scheme(NETWORK, CHECKPOINTS[name].scheme)
    assert found.weights / 1e9 == pytest.approx(gigabytes, abs=0.005)


@pytest.mark.parametrize(("form", "gigabytes"), [("nvfp4-8bit", 15.346), ("int4-4bit", 14.575)])
def test_quantised_weights(form: str, gigabytes: float) -> None:
    scheme = read_scheme(None, {**FULL, "quantization_config": FORMATS[form].config})
    assert memory.of_scheme(NETWORK, scheme).weights / 1e9 == pytest.approx(gigabytes, abs=0.005)


def test_the_table_is_the_released_configuration() -> None:
    assert ModelConfig.from_dict(FULL) == NETWORK


@pytest.mark.parametrize("form", OURS)
def test_the_table_is_what_config_json_says(form: str) -> None:
    published = CHECKPOINTS[OURS[form]]
    scheme = read_scheme(None, {**FULL, "quantization_config": FORMATS[form].config})
    assert memory.of_scheme(NETWORK, published.scheme) == memory.of_scheme(NETWORK, scheme)
    written = sum(map(make_synthetic.data_bytes, synthetic_tensors.entries(FULL, form)))
    assert published.download == pytest.approx(written, rel=1e-3)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_weights_are_those_of_the_loaded_model(tmp_path: Path, form: str, dtype: str) -> None:
    folder = raw_files.checkpoint(tmp_path, form)
    model = load_model(folder, "cpu", "float32")
    if dtype == "bfloat16":  # converted here, since loading may lay such weights out anew
        plain = sum(tensor.numel() for tensor in model.parameters())
        held = 2 * plain + sum(tensor.numel() * tensor.element_size() for tensor in model.buffers())
    else:
        held = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])
    assert memory.of_folder(folder, dtype).weights == held


@pytest.mark.parametrize("form", FORMATS)
def test_the_configuration_tells_what_the_files_tell(tmp_path: Path, form: str) -> None:
    """Without the files one expert is counted for all."""
    folder = raw_files.checkpoint(tmp_path, form)
    config, scheme = ModelConfig.from_folder(folder), read_scheme(folder, read_json(folder / "config.json"))
    assert memory.of_scheme(config, scheme) == memory.of_folder(folder)


def test_experts_that_are_not_alike_are_refused_before_they_are_fetched() -> None:
    scheme = CHECKPOINTS["diffusiongemma:nvfp4"].scheme
    last = f"*.layers.29.experts.{NETWORK.num_experts - 1}.up_proj"
    with pytest.raises(CheckpointError, match="some experts are packed and some are not"):
        memory.of_scheme(NETWORK, replace(scheme, ignore=(*scheme.ignore, last)))


def test_largest_packed_matrix(tmp_path: Path) -> None:
    assert memory.of_folder(raw_files.checkpoint(tmp_path / "a", "bf16")).largest == 0
    assert memory.of_folder(raw_files.checkpoint(tmp_path / "b", "nvfp4")).largest == 2 * 32 * 64
    assert memory.of_folder(raw_files.checkpoint(tmp_path / "c", "fp8")).largest == 2 * 128 * 64  # gate and up


@pytest.mark.parametrize("tokens", [1, 700, 1024, 1025, 2900, 5000])
@pytest.mark.parametrize(("dtype", "goes_on"), [("bfloat16", False), ("float32", False), ("bfloat16", True)])
def test_cache(tmp_path: Path, tokens: int, dtype: str, goes_on: bool) -> None:
    folder = raw_files.checkpoint(tmp_path, max_position_embeddings=8192)
    model = load_model(folder, "cpu", dtype)
    cache = model.new_cache(SLACK if goes_on else 0)
    model.encode(torch.zeros(tokens, dtype=torch.int64), cache)
    assert memory.cache_bytes(model.config, tokens, dtype, goes_on=goes_on) == allocated(cache)


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("context", [2000, 8192])
@pytest.mark.parametrize("tokens", [1, 1024, 2000, 4096, 4097, 7000])
def test_cache_on_cuda(tmp_path: Path, context: int, tokens: int, goes_on: bool) -> None:
    tokens = min(tokens, context)
    folder = raw_files.checkpoint(tmp_path, max_position_embeddings=context)
    config = ModelConfig.from_folder(folder)
    cache = StaticCache(Pool(config, torch.zeros(0, dtype=torch.bfloat16), Model.chunk), SLACK if goes_on else 0)
    for chunk in torch.zeros(tokens).split(Model.chunk):
        cache.begin(len(chunk))
        cache.end(len(chunk))
    assert memory.cache_bytes(config, tokens, static=True, goes_on=goes_on) == cache.nbytes


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_replies_in_turns(kind: memory.Kind) -> None:
    """A cache each, on CUDA with the probabilities of its recorded steps; where none are recorded, logits each."""
    found = memory.of_scheme(NETWORK, CHECKPOINTS["diffusiongemma:nvfp4"].scheme)
    one, three, resting = (
        found.needs(8192, kind, work=memory.Work(replies=replies, at_rest=at_rest, goes_on=True, plain=True))
        for replies, at_rest in ((1, 0), (3, 0), (3, 5_000_000))
    )
    cache = memory.cache_bytes(NETWORK, 8192, static=kind == "cuda", goes_on=True)
    logits = 4 * NETWORK.canvas_length * NETWORK.vocab_size
    assert (one.cache, three.cache, resting.cache) == (cache, 3 * cache, 3 * cache + 5_000_000)
    assert (one.weights, one.process) == (three.weights, three.process)
    assert three.working - one.working == (logits if kind == "cuda" else 2 * logits)
    # A chat may turn from one canvas to several and keeps what it recorded.
    several = found.needs(8192, "cuda", work=memory.Work(canvases=4)).working
    assert found.needs(8192, "cuda", work=memory.Work(canvases=4, goes_on=True)).working - several == logits


def allocated(cache: KVCache) -> int:
    return sum(tensor.numel() * tensor.element_size() for layer in cache._layers for tensor in (layer.k, layer.v))


@pytest.mark.parametrize("room", [10, 17, 20, 21, 24, 80])
def test_longest_context(room: int) -> None:
    found = memory.of_scheme(NETWORK, CHECKPOINTS["diffusiongemma:nvfp4"].scheme)
    tokens = found.longest_context(room * 10**9, "cuda")
    assert tokens % 1024 == 0
    if tokens:
        assert found.needs(tokens, "cuda").total <= room * 10**9
    if tokens < NETWORK.max_context:
        assert found.needs(tokens + 1024, "cuda").total > room * 10**9
    assert (tokens == 0) == (room < 20)
    assert (tokens == NETWORK.max_context) == (room == 80)


WORKING = """
import pathlib, resource, sys, torch
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.model.model import Model
from dgemma_cli.model.static_cache import Pool, StaticCache
from dgemma_cli.weights.loader import load_model

model = load_model(pathlib.Path(sys.argv[1]), "cpu", "bfloat16")
before = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
for _ in generate(model, [5] * 20, Options(max_tokens=128, steps=4, seed=0)):
    pass
status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would count the parent of this process too
print(int(status.split("VmHWM:")[1].split()[0]) * 1024 - before)
"""


def test_working_memory_of_a_step(tmp_path: Path) -> None:
    """The constants are still true: a model whose logits are nearly all that it computes."""
    config = synthetic_tensors.tiny()
    config["canvas_length"] = 64
    config["text_config"] |= {"vocab_size": 262_144}
    make_synthetic.write(tmp_path, config, "nvfp4")
    run = subprocess.run([sys.executable, "-c", WORKING, str(tmp_path)], capture_output=True, text=True, check=True)
    predicted = memory.of_folder(tmp_path).needs(128, "cpu").working
    assert 0.5 * predicted < int(run.stdout) < 1.1 * predicted + 50e6  # libraries that the first step loads


def test_imports_no_torch() -> None:
    modules = "dgemma_cli.memory, dgemma_cli.machine, dgemma_cli.weights.published"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
