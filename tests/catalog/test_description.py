"""What a model is, told from its own tensors and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import deserialize

from dgemma_cli.catalog.description import describe

Checkpoint = Callable[..., dict[str, bytes]]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


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
    assert found.disk == sum(map(len, files.values()))


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
