"""Figures of a model against the published ones, and against its own tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import deserialize

from dgemma_cli.catalog.description import describe, kv_cache_bytes
from dgemma_cli.model.config import ModelConfig

DATA = Path(__file__).parents[2].parent / "shared" / "data"
Checkpoint = Callable[..., dict[str, bytes]]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def published() -> ModelConfig:
    file = DATA / "config.nvidia-nvfp4.json"
    if not file.is_file():
        pytest.skip("the published configuration (shared/data) is not beside this checkout")
    return ModelConfig.from_dict(json.loads(file.read_text()))


@pytest.mark.parametrize(("tokens", "gigabytes"), [(8192, 0.38), (32768, 0.88), (262144, 5.6)])
def test_the_published_cache(published: ModelConfig, tokens: int, gigabytes: float) -> None:
    canvas = kv_cache_bytes(published, 0)  # room for the canvas itself, which the published figures leave out
    assert (kv_cache_bytes(published, tokens) - canvas) / 1e9 == pytest.approx(gigabytes, abs=0.03)


def test_a_cache_by_hand(checkpoint: Checkpoint) -> None:
    config = ModelConfig.from_dict(json.loads(checkpoint()["config.json"]))
    # Two sliding layers of 2 x 16, window 16; a full one of 1 x 32; canvas 16; keys and values of 2 bytes.
    assert kv_cache_bytes(config, 10) == 2 * 2 * (2 * 32 * (10 + 16) + 32 * (10 + 16))
    assert kv_cache_bytes(config, 1000) == 2 * 2 * (2 * 32 * (15 + 16) + 32 * (1000 + 16))


@pytest.mark.parametrize(("form", "label"), [("bf16", "bf16"), ("nvfp4", "nvfp4"), ("int4", "int4"), ("fp8", "fp8")])
def test_a_model_of_every_format(checkpoint: Checkpoint, tmp_path: Path, form: str, label: str) -> None:
    files = checkpoint(form)
    found = describe(write(tmp_path, files))
    plain = dict(deserialize(checkpoint("bf16")["model.safetensors"]))
    text = sum(len(tensor["data"]) for name, tensor in plain.items() if "vision" not in name)
    assert found.parameters == text // 2
    experts = sum(len(tensor["data"]) for name, tensor in plain.items() if ".experts." in name) // 2
    assert found.active == found.parameters - experts // 2  # 2 of 4 experts
    assert found.format.startswith(label)
    assert found.license == "apache-2.0"
    assert found.architecture == "DiffusionGemmaForBlockDiffusion"
    stored = dict(deserialize(files["model.safetensors"]))
    assert found.weights == sum(len(tensor["data"]) for name, tensor in stored.items() if "vision" not in name)
    assert found.disk == sum(map(len, files.values()))
    assert found.memory == {4096: found.weights + kv_cache_bytes(found.config, 4096)}


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\ntags: [x]\nlicense: 'gemma' # see below\n---\nlicense: no\n", "gemma"),
        ("license: not-in-the-head\n", None),
        ("---\nno end", None),
        ("", None),
    ],
)
def test_the_licence_is_what_the_card_states(
    checkpoint: Checkpoint, tmp_path: Path, card: str, license: str | None
) -> None:
    assert describe(write(tmp_path, {**checkpoint(), "README.md": card.encode()})).license == license
