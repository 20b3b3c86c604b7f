"""Damaged, incomplete and contradicting files: one error that names file and tensor, exit 3, and no model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import raw_files
from raw_files import Header, Raw

from dgemma_cli.errors import CheckpointError, ModelUnavailable
from dgemma_cli.model.model import Model
from dgemma_cli.weights.loader import load_model

INDEX = "model.safetensors.index.json"
NORM = "model.decoder.norm.weight"
SHARDS = 6


def refusal(folder: Path, *words: str) -> str:
    """Loading fails with one line that holds ``words``; a message of ours, never one of a library."""
    with pytest.raises(ModelUnavailable) as caught:
        load_model(folder, "cpu", "float32")
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    for word in words:
        assert word in caught.value.message
    return caught.value.message


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A checkpoint of one file."""
    return raw_files.checkpoint(tmp_path)


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A checkpoint of several files and an index."""
    folder = raw_files.checkpoint(tmp_path, most=100_000)
    assert len(raw_files.shards(folder)) == SHARDS
    return folder


def test_whole_ones_load(one: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert isinstance(load_model(one, "cpu", "float32"), Model)
    other = raw_files.checkpoint(tmp_path_factory.mktemp("several"), most=100_000)
    assert load_model(other, "cpu", "float32").skipped == 18


def test_no_such_folder(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere", "nowhere has no config.json")


def test_no_config(one: Path) -> None:
    (one / "config.json").unlink()
    refusal(one, "has no config.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
@pytest.mark.parametrize("name", ["config.json", INDEX, "hf_quant_config.json", "generation_config.json"])
def test_damaged_json(several: Path, name: str, content: bytes) -> None:
    (several / name).write_bytes(content)
    refusal(several, name)


def test_no_weights(one: Path) -> None:
    raw_files.shards(one)[0].unlink()
    refusal(one, "no *.safetensors file")


def test_several_files_without_index(several: Path) -> None:
    (several / INDEX).unlink()
    refusal(several, f"{SHARDS} safetensors files and no {INDEX}")


def test_missing_shard(several: Path) -> None:
    missing = raw_files.shards(several)[1]
    missing.unlink()
    refusal(several, f"{SHARDS - 1} of {SHARDS} files", missing.name)


def test_missing_tensor(one: Path) -> None:
    raw_files.change(raw_files.shards(one)[0], lambda tensors: tensors.pop(NORM) and None)
    refusal(one, f"lacks {NORM}.")


def test_extra_tensor(one: Path) -> None:
    name = "model.decoder.layers.3.layer_scalar"
    raw_files.change(raw_files.shards(one)[0], lambda tensors: tensors.update({name: ("BF16", [1], b"\0\0")}))
    refusal(one, "model.safetensors holds", name)


def test_missing_scalar_of_the_encoder(one: Path) -> None:
    """The decoder's own must not stand in for it."""
    name = "model.encoder.language_model.layers.1.layer_scalar"
    raw_files.change(raw_files.shards(one)[0], lambda tensors: tensors.pop(name) and None)
    refusal(one, name)


@pytest.mark.parametrize("name", [NORM, "model.decoder.layers.1.self_attn.q_proj.weight"])
def test_wrong_shape(one: Path, name: str) -> None:
    def reshape(header: Header) -> None:
        header[name]["shape"] = [2, *header[name]["shape"][:-1], header[name]["shape"][-1] // 2]

    raw_files.change_header(raw_files.shards(one)[0], reshape)
    refusal(one, "model.safetensors", name, "has shape [2, ")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "U8", "I32", "BOOL"])
def test_wrong_dtype(one: Path, dtype: str) -> None:
    size = {"I32": 4}.get(dtype, 1)

    def retype(tensors: Raw) -> None:
        tensors[NORM] = (dtype, tensors[NORM][1], bytes(64 * size))

    raw_files.change(raw_files.shards(one)[0], retype)
    refusal(one, "model.safetensors", f"{NORM} is {dtype}; BF16 or F16 or F32 expected")


@pytest.mark.parametrize("keep", [0, 3, 8, 100, 5_000, -1])
@pytest.mark.parametrize("which", [0, 2])
def test_truncated(several: Path, which: int, keep: int) -> None:
    file = raw_files.shards(several)[which]
    file.write_bytes(file.read_bytes()[:keep])
    refusal(several, file.name, "cut short")


def test_longer_than_its_tensors(one: Path) -> None:
    file = raw_files.shards(one)[0]
    file.write_bytes(file.read_bytes() + bytes(10))
    refusal(one, "model.safetensors is")


@pytest.mark.parametrize(
    "edit",
    [
        lambda header: header[NORM].pop("shape"),
        lambda header: header[NORM].pop("dtype"),
        lambda header: header[NORM].pop("data_offsets"),
        lambda header: header[NORM].update(shape=[64.0]),
        lambda header: header[NORM].update(shape=["64"]),
        lambda header: header[NORM].update(shape=[True] * 64),
        lambda header: header[NORM].update(shape=[-64]),
        lambda header: header[NORM].update(shape=[2**70]),
        lambda header: header[NORM].update(shape=64),
        lambda header: header[NORM].update(shape=None),
        lambda header: header[NORM].update(dtype=["BF16"]),
        lambda header: header[NORM].update(data_offsets=[0]),
        lambda header: header[NORM].update(data_offsets=[-2, 126]),
        lambda header: header[NORM].update(data_offsets=[10**30, 10**30 + 128]),
        lambda header: header[NORM].update(data_offsets=header[NORM]["data_offsets"][::-1]),
        lambda header: header[NORM].update(data_offsets=[0, 128]),  # another tensor's bytes
        lambda header: header.update({NORM: None}),
        lambda header: header.update({"extra": 7}),
    ],
)
def test_damaged_header(one: Path, edit: Callable[[Header], Any]) -> None:
    raw_files.change_header(raw_files.shards(one)[0], edit)
    refusal(one, "model.safetensors")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"7", b"\xff" * 64, b"[" * 200_000, b'{"a":' + b"1" * 5000 + b"}"]
)
def test_header_that_is_none(one: Path, text: bytes) -> None:
    raw_files.put_together(raw_files.shards(one)[0], text, b"")
    refusal(one, "model.safetensors")


def test_header_length_beyond_the_file(one: Path) -> None:
    file = raw_files.shards(one)[0]
    file.write_bytes((2**63).to_bytes(8, "little") + file.read_bytes()[8:])
    refusal(one, "model.safetensors")


def test_tensor_twice_in_one_header(one: Path) -> None:
    file = raw_files.shards(one)[0]
    header, values = raw_files.take_apart(file)
    text = json.dumps(header)
    raw_files.put_together(file, f"{text[:-1]},{json.dumps(NORM)}:{json.dumps(header[NORM])}}}".encode(), values)
    refusal(one, "model.safetensors", NORM, "twice")


def test_tensor_in_two_files(several: Path) -> None:
    first, second = raw_files.shards(several)[:2]
    name, tensor = next(iter(raw_files.read(first).items()))
    raw_files.change(second, lambda tensors: tensors.update({name: tensor}))
    refusal(several, f"{name} stands in two files", first.name, second.name)


def test_index_that_names_a_missing_file(several: Path) -> None:
    raw_files.change_json(several / INDEX, lambda index: index["weight_map"].update({NORM: "gone.safetensors"}))
    refusal(several, "gone.safetensors")


def test_index_that_names_another_file(several: Path) -> None:
    here = json.loads((several / INDEX).read_text())["weight_map"][NORM]
    other = next(file.name for file in raw_files.shards(several) if file.name != here)
    raw_files.change_json(several / INDEX, lambda index: index["weight_map"].update({NORM: other}))
    refusal(several, NORM, other, here)


def test_index_that_forgets_a_tensor(several: Path) -> None:
    raw_files.change_json(several / INDEX, lambda index: index["weight_map"].pop(NORM))
    refusal(several, NORM)


def test_index_that_names_a_missing_tensor(several: Path) -> None:
    file = raw_files.shards(several)[0].name
    raw_files.change_json(several / INDEX, lambda index: index["weight_map"].update({"ghost": file}))
    refusal(several, "ghost", file)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", ""])
def test_index_that_leaves_the_folder(several: Path, name: str) -> None:
    raw_files.change_json(several / INDEX, lambda index: index["weight_map"].update({NORM: name}))
    refusal(several, INDEX)


@pytest.mark.parametrize("found", [None, [], 7, {NORM: 7}, {NORM: None}])
def test_index_without_a_map(several: Path, found: object) -> None:
    raw_files.change_json(several / INDEX, lambda index: index.update(weight_map=found))
    refusal(several, INDEX)


def test_a_folder_in_a_file_s_place(one: Path) -> None:
    file = raw_files.shards(one)[0]
    file.unlink()
    file.mkdir()
    refusal(one, "model.safetensors")


def test_tied_head_is_accepted_when_equal(one: Path) -> None:
    file = raw_files.shards(one)[0]
    embedding = raw_files.read(file)["model.decoder.embed_tokens.weight"]
    raw_files.change(file, lambda tensors: tensors.update({"lm_head.weight": embedding}))
    assert isinstance(load_model(one, "cpu", "float32"), Model)


def test_untied_head(one: Path) -> None:
    file = raw_files.shards(one)[0]
    dtype, shape, data = raw_files.read(file)["model.decoder.embed_tokens.weight"]
    changed = (dtype, shape, data[:-1] + bytes([data[-1] ^ 1]))
    raw_files.change(file, lambda tensors: tensors.update({"lm_head.weight": changed}))
    refusal(one, "model.safetensors: lm_head.weight differs")


def test_file_that_shrinks_while_it_is_read(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgemma_cli.weights import loader

    file = raw_files.shards(one)[0]

    def cut(*arguments: Any) -> Model:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return build(*arguments)

    build = loader.build
    monkeypatch.setattr(loader, "build", cut)
    with pytest.raises(CheckpointError, match=r"model\.safetensors ends within "):
        load_model(one, "cpu", "float32")
