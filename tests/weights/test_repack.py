"""Packed anew on the way in, and written out: the same numbers, whatever way they come."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import oracle
import pytest
import raw_files
import torch
import unpacking
from test_logits_parity import distance, ours, theirs
from test_packed_formats import unpacked
from torch import Tensor

from dgemma_cli.errors import CheckpointError, DiskError, UsageError
from dgemma_cli.weights import writer
from dgemma_cli.weights.checkpoint import read_checkpoint
from dgemma_cli.weights.loader import load_model
from dgemma_cli.weights.recipe import Recipe, recipe
from dgemma_cli.weights.repack import Losses
from dgemma_cli.weights.writer import draft, write

RECIPES = [("nvfp4", None), ("int4", None), ("nvfp4", "8bit"), ("int4", "4bit"), (None, "8bit"), (None, "4bit")]
BOUND = {"4": 0.13, "8": 0.008}  # relative error of a matrix of normal numbers


def quantised(source: Path, target: Path, chosen: Recipe, shard: int = 10**9) -> Losses:
    losses = Losses()
    write(draft(source, chosen, shard), target, "cpu", None, losses)
    return losses


def logits(folder: Path, chosen: Recipe | None = None) -> list[Tensor]:
    model = load_model(folder, "cpu", "float32", recipe=chosen or Recipe())
    ids = torch.randint(0, 211, (37 + 4 * 16,), generator=torch.Generator().manual_seed(1))
    return ours(model, ids[:37], ids[37:].view(4, 16))


@pytest.mark.parametrize("form", ["bf16", "nvfp4", "int4", "fp8"])
@pytest.mark.parametrize("wanted", RECIPES)
def test_weights_are_the_nearest(tmp_path: Path, form: str, wanted: tuple[str | None, str | None]) -> None:
    """What is packed anew differs by the rounding that is reported, the rest not at all."""
    folder = unpacking.checkpoint(tmp_path / "from", form)
    before = unpacking.dequantised(folder)
    for layer in range(3):  # fused ones by their names alone
        fused = f"model.decoder.layers.{layer}.experts."
        if f"{fused}gate_up_proj" in before:
            for expert in range(4):
                both = before[f"{fused}gate_up_proj"][expert].float()
                before[f"{fused}{expert}.gate_proj.weight"], before[f"{fused}{expert}.up_proj.weight"] = both.chunk(2)
                before[f"{fused}{expert}.down_proj.weight"] = before[f"{fused}down_proj"][expert].float()
    losses = Losses()
    chosen = recipe(*wanted)
    model = load_model(folder, "cpu", "float32", recipe=chosen, losses=losses)
    error: dict[str, float] = {}
    was_packed = {name.removesuffix("_scale") for name, _ in raw_files.all_tensors(folder) if "weight_scale" in name}
    for name, values in unpacked(model).items():
        wish = chosen.format_for(name)
        if torch.equal(values, before[name].float()):
            assert name in was_packed
            continue
        assert wish is not None
        off = (values - before[name].float()).norm() / before[name].float().norm()
        assert 0 < off < BOUND[str(wish.bits)]
        part = next(part for part in ("experts", "self_attn", "mlp", "conditioning", "embed") if part in name)
        error[part] = error.get(part, 0.0) + float((values - before[name].float()).square().sum())
    assert bool(error) == bool(losses.by_part) == (form in ("bf16", "fp8") or wanted[1] is not None)
    for part, loss in losses.parts().items():
        short = {"attention": "self_attn", "self-conditioning": "conditioning", "embedding": "embed"}.get(part, part)
        assert loss.error == pytest.approx(error[short], rel=1e-3)
    assert {layer for layer, _ in losses.by_part} <= {-1, 0, 1, 2}


@pytest.mark.parametrize("form", ["bf16", "nvfp4", "fp8"])
@pytest.mark.parametrize("wanted", [("nvfp4", "8bit"), ("int4", "4bit")])
def test_written_and_loaded_is_as_packed_while_loading(
    tmp_path: Path, form: str, wanted: tuple[str | None, str | None]
) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", form)
    losses = quantised(folder, tmp_path / "to", recipe(*wanted), shard=60_000)
    assert len(raw_files.shards(tmp_path / "to")) > 2
    assert losses.by_part
    for found, expected in zip(logits(tmp_path / "to"), logits(folder, recipe(*wanted)), strict=True):
        # ModelOpt's matrix scale multiplies, the one written divides: the reciprocal may be off by its last bit.
        assert torch.equal(found, expected) if form != "nvfp4" else distance(found, expected) < 1e-5


@pytest.mark.parametrize("wanted", RECIPES)
def test_written_ones_equal_transformers_with_their_weights(
    tmp_path: Path, wanted: tuple[str | None, str | None]
) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    quantised(folder, tmp_path / "to", recipe(*wanted))
    reference = oracle.reload_in_float64(unpacking.plain_copy(tmp_path / "to", tmp_path / "plain"))
    ids = torch.randint(0, 211, (37 + 4 * 16,), generator=torch.Generator().manual_seed(1))
    expected = theirs(reference, ids[:37], ids[37:].view(4, 16))
    for found, other in zip(logits(tmp_path / "to"), expected, strict=True):
        assert distance(found, other) < 2e-5


def test_unpacked_by_other_hands(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    quantised(folder, tmp_path / "to", recipe("nvfp4", "4bit"))
    expected = unpacking.dequantised(tmp_path / "to")
    for name, values in unpacked(load_model(tmp_path / "to", "cpu", "float32")).items():
        assert torch.equal(values, expected[name]), name


def test_matrices_used_together_share_a_matrix_scale(tmp_path: Path) -> None:
    """Fused kernels of other engines have one for q, k and v, and for gate and up."""
    quantised(unpacking.checkpoint(tmp_path / "from", "bf16"), tmp_path / "to", recipe("nvfp4", "4bit"))
    found = dict(raw_files.all_tensors(tmp_path / "to"))
    for names in (
        ("self_attn.q", "self_attn.k", "self_attn.v"),
        ("experts.1.gate", "experts.1.up"),
        ("mlp.gate", "mlp.up"),
    ):
        scales = {found[f"model.decoder.layers.0.{name}_proj.weight_global_scale"][2] for name in names}
        assert len(scales) == 1


def test_experts_of_modelopt_keep_their_codes(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "nvfp4")
    quantised(folder, tmp_path / "to", recipe(None, "4bit"))
    before, after = dict(raw_files.all_tensors(folder)), dict(raw_files.all_tensors(tmp_path / "to"))
    name = "model.decoder.layers.1.experts.2.up_proj."
    assert before[f"{name}weight"] == after[f"{name}weight_packed"]
    assert before[f"{name}weight_scale"] == after[f"{name}weight_scale"]
    assert f"{name}weight_scale_2" not in after


def test_a_matrix_of_zeros(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "nvfp4")
    name = "model.decoder.layers.1.experts.2.up_proj.weight_scale_2"
    raw_files.change(raw_files.shards(folder)[0], lambda tensors: tensors.update({name: ("F32", [], bytes(4))}))
    quantised(folder, tmp_path / "to", recipe(None, "8bit"))
    assert not unpacked(load_model(tmp_path / "to", "cpu", "float32"))[name.removesuffix("_scale_2")].any()


def test_vision_and_what_lies_beside_come_along(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"0")
    quantised(folder, tmp_path / "to", recipe("int4"), shard=60_000)
    before, after = dict(raw_files.all_tensors(folder)), dict(raw_files.all_tensors(tmp_path / "to"))
    vision = [name for name in before if "vision" in name]
    assert len(vision) == 18
    assert all(before[name] == after[name] for name in vision)
    others = {file.name for file in (tmp_path / "to").iterdir() if file.suffix != ".safetensors"}
    assert others == {"config.json", "tokenizer.json", "README.md", "model.safetensors.index.json"}
    config = json.loads((tmp_path / "to" / "config.json").read_text())
    assert config.pop("quantization_config")["format"] == "pack-quantized"
    assert config == json.loads((folder / "config.json").read_text())


def test_bad_values_are_refused(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    name = "model.decoder.layers.0.mlp.up_proj.weight"

    def spoil(tensors: raw_files.Raw) -> None:
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape, data[:-2] + b"\xc0\x7f")

    raw_files.change(raw_files.shards(folder)[0], spoil)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {name} holds a value that is not finite"):
        quantised(folder, tmp_path / "to", recipe("nvfp4", "8bit"))
    assert list(tmp_path.iterdir()) == [folder]


def test_nothing_to_do(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "nvfp4")
    with pytest.raises(UsageError, match="nothing to quantise"):
        draft(folder, recipe("int4"))


def test_several_formats_in_one_part(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    with pytest.raises(CheckpointError, match="several formats"):
        scheme = read_checkpoint(folder)
        plan = scheme.repacked(recipe("nvfp4"))
        other = scheme.plan.matrices["model.decoder.layers.0.experts.0.up_proj"]
        plan.matrices[other.name] = other
        writer.quantization_config(plan)


def test_an_existing_target_is_kept(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    (tmp_path / "to").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        quantised(folder, tmp_path / "to", recipe("nvfp4"))
    assert not list((tmp_path / "to").iterdir())


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: SimpleNamespace(free=7))
    with pytest.raises(DiskError, match=r" kB, 7 B are free"):
        quantised(folder, tmp_path / "to", recipe("nvfp4"))
    assert list(tmp_path.iterdir()) == [folder]


def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")

    def full(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.os, "pwrite", full)
    with pytest.raises(DiskError, match="disk is full"):
        quantised(folder, tmp_path / "to", recipe("nvfp4"))
    assert list(tmp_path.iterdir()) == [folder]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    seen: list[int] = []

    def interrupt(done: int, total: int) -> None:
        seen.append(done)
        assert [each.name for each in tmp_path.iterdir() if each != folder] == [".to.incomplete"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(draft(folder, recipe("nvfp4")), tmp_path / "to", "cpu", interrupt, Losses())
    assert seen
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_run_left_is_taken_over(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    left = tmp_path / ".to.incomplete"
    left.mkdir()
    (left / "model-00001-of-00009.safetensors").write_bytes(b"half")
    quantised(folder, tmp_path / "to", recipe("nvfp4"))
    assert not left.exists()
    assert [file.name for file in raw_files.shards(tmp_path / "to")] == ["model.safetensors"]


def test_two_runs_do_not_share_a_target(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    left = tmp_path / ".to.incomplete"
    left.mkdir()
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(UsageError, match="Another run"):
            quantised(folder, tmp_path / "to", recipe("nvfp4"))
        assert left.exists()
    finally:
        os.close(descriptor)


def test_progress_reaches_what_is_read(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path / "from", "bf16")
    planned = draft(folder, recipe("nvfp4", "4bit"))
    calls: list[tuple[int, int]] = []
    write(planned, tmp_path / "to", "cpu", lambda done, total: calls.append((done, total)), Losses())
    assert calls[-1] == (planned.read, planned.read)
    assert planned.size == sum(file.stat().st_size for file in raw_files.shards(tmp_path / "to"))
