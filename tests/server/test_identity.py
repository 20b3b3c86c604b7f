"""When a server would do just what this process would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from identities import identity

from dgemma_cli.server.identity import Identity, Wanted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Identity:
    return identity(folder, {}, device="cuda", dtype="bfloat16", auto_dtype=False)


@pytest.mark.parametrize(
    ("device", "dtype", "fits"),
    [
        ("auto", "bfloat16", True),
        ("cuda", "bfloat16", True),
        ("cuda:0", "bfloat16", True),
        ("cuda:1", "bfloat16", False),
        ("cpu", "bfloat16", False),
        ("auto", "auto", False),
        ("auto", "float32", False),
    ],
)
def test_device_and_dtype(server: Identity, folder: Path, device: str, dtype: str, fits: bool) -> None:
    assert (Wanted(folder, device, dtype, "auto").mismatch(server, {}) is None) is fits


def test_what_else_makes_it_another(server: Identity, folder: Path) -> None:
    wanted = Wanted(folder, "auto", "bfloat16", "auto")
    for change in (
        {"version": "0"},
        {"prefix": "/elsewhere"},
        {"folder": "/other"},
        {"fingerprint": "x"},
        {"auto_device": False},
        {"limited": True},
        {"fit": "16000000000B"},
    ):
        assert wanted.mismatch(replace(server, **change), {}) is not None
    assert wanted.mismatch(server, {"CUDA_VISIBLE_DEVICES": "1"}) == "CUDA_VISIBLE_DEVICES is another there"
    assert wanted.mismatch(server, {}) is None


def test_files_that_changed_are_noticed(server: Identity, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert Wanted(folder, "auto", "bfloat16", "auto").mismatch(server, {}) == "the model's files have changed since"


def test_a_link_to_the_model_is_the_model(server: Identity, folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert Wanted(link, "auto", "bfloat16", "auto").mismatch(server, {}) is None


def test_what_is_no_identity() -> None:
    for found in (None, [], {}, {"name": "nano"}):
        with pytest.raises(ValueError, match="no"):
            Identity.read(found)
