"""The published checkpoints, by count: what the synthetic ones hold and what the loader asks for, at full size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import make_synthetic
import pytest
import synthetic_tensors
from synthetic_tensors import FORMATS, FULL

from dgemma_cli.model.config import ModelConfig
from dgemma_cli.weights.layout import VISION_PREFIXES, make_plan
from dgemma_cli.weights.scheme import read_scheme

# Tensors, and bytes of all safetensors files with the share they may be off: where a published figure is rounded to
# 0.01 GB, or a shard is cut a tensor earlier, which changes its header.
PUBLISHED = {
    "bf16": (1_047, 51_647_562_456, 3e-6),
    "nvfp4": (47_067, 18_823_855_888, 1e-8),
    "nvfp4-redhat": (None, 18_050_000_000, 3e-4),
    "int4": (None, 17_220_000_000, 5e-4),
    "fp8": (24_232, 27_200_000_000, 2e-3),
}
CENSUS = {
    "bf16": {"BF16": 1_047},
    "nvfp4": {"F32": 23_040, "BF16": 987, "F8_E4M3": 11_520, "U8": 11_520},
}


def files(form: str, most: int) -> list[int]:
    """Sizes of the files that would be written."""
    shards = make_synthetic.split(synthetic_tensors.entries(FULL, form), most)
    return [len(make_synthetic.header(shard)[0]) + sum(map(make_synthetic.data_bytes, shard)) for shard in shards]


@pytest.mark.parametrize("form", PUBLISHED)
def test_tensors_and_bytes(form: str) -> None:
    entries = list(synthetic_tensors.entries(FULL, form))
    count, total, tolerance = PUBLISHED[form]
    assert len({entry.name for entry in entries}) == len(entries)
    if count is not None:
        assert len(entries) == count
    if form in CENSUS:
        assert Counter(entry.dtype for entry in entries) == CENSUS[form]
    assert sum(files(form, 10_000_000_000)) == pytest.approx(total, rel=tolerance)


def test_file_split() -> None:
    assert files("nvfp4", 10_000_000_000) == pytest.approx([10_002_097_536, 8_821_758_352], abs=20_000)
    assert len(files("bf16", 5_000_000_000)) == 11


def test_vision_tower() -> None:
    tower = [e for e in synthetic_tensors.entries(FULL, "bf16") if e.name.startswith(VISION_PREFIXES)]
    assert len(tower) == 356
    assert sum(map(make_synthetic.data_bytes, tower)) == pytest.approx(2 * 0.57e9, rel=0.01)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", ["full", "tiny"])
def test_the_loader_asks_for_exactly_these(tmp_path: Path, form: str, size: str) -> None:
    config = FULL if size == "full" else synthetic_tensors.tiny()
    written = {
        entry.name: (entry.dtype, entry.shape)
        for entry in synthetic_tensors.entries(config, form)
        if not entry.name.startswith(VISION_PREFIXES)
    }
    quantised = {**config, "quantization_config": FORMATS[form].config}
    plan = make_plan(ModelConfig.from_dict(config), read_scheme(tmp_path, quantised), lambda _: None)
    assert {slot.tensor: slot.shape for slot in plan.slots} == {name: shape for name, (_, shape) in written.items()}
    assert all(written[slot.tensor][0] in slot.part.dtypes for slot in plan.slots)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_is_what_was_announced(tmp_path: Path, form: str) -> None:
    """Files of a tiny checkpoint as the safetensors library reads them, and the same bytes for the same seed."""
    from safetensors import safe_open

    config = synthetic_tensors.tiny()
    folder = make_synthetic.write(tmp_path / "one", config, form, most=100_000, seed=3)
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                part = opened.get_slice(name)
                found[name] = (part.get_dtype(), tuple(part.get_shape()))
                assert opened.get_tensor(name).float().isfinite().all()
    assert found == {entry.name: (entry.dtype, entry.shape) for entry in synthetic_tensors.entries(config, form)}
    again = make_synthetic.write(tmp_path / "two", config, form, most=100_000, seed=3)
    for file in folder.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes()
