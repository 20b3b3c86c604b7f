"""Write a checkpoint of random weights in the exact layout of a published format: names, dtypes, shapes, file split.

python tools/make_synthetic.py DIR --format nvfp4 --size tiny
python tools/make_synthetic.py DIR --format nvfp4 --size full      # 18.8 GB, to measure with
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from synthetic_tensors import FORMATS, FULL, Entry, entries, tiny

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "U8": 1, "F8_E4M3": 1}
_SIZES = {"full": lambda: FULL, "tiny": tiny}
# Widest alignment first, then by name: the order in which the safetensors library writes.
_ORDER = {"I64": 0, "F32": 1, "I32": 2, "BF16": 3, "F16": 4, "F8_E4M3": 5, "U8": 6}


def data_bytes(entry: Entry) -> int:
    """Bytes of a tensor's values."""
    count = ITEM_BYTES[entry.dtype]
    for size in entry.shape:
        count *= size
    return count


def split(tensors: Iterable[Entry], most: int) -> Iterator[list[Entry]]:
    """Tensors in their order, cut into files of at most ``most`` bytes of values (one larger tensor stands alone)."""
    shard: list[Entry] = []
    used = 0
    for entry in tensors:
        size = data_bytes(entry)
        if shard and used + size > most:
            yield shard
            shard, used = [], 0
        shard.append(entry)
        used += size
    yield shard


def header(shard: Iterable[Entry]) -> tuple[bytes, list[Entry]]:
    """The beginning of a safetensors file with these tensors, and the order in which their values follow."""
    ordered = sorted(shard, key=lambda entry: (_ORDER[entry.dtype], entry.name))
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for entry in ordered:
        end = position + data_bytes(entry)
        table[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, ordered


def write(folder: Path, config: dict[str, Any], form: str, most: int = 10_000_000_000, seed: int = 0) -> Path:
    """Write config.json, the weights in files of about ``most`` bytes and their index. Returns ``folder``.

    config: a parsed config.json without quantization_config; form: a key of FORMATS. No tokenizer is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scheme = FORMATS[form].config
    written = dict(config) if scheme is None else {**config, "quantization_config": scheme}
    (folder / "config.json").write_text(json.dumps(written, indent=2))
    if FORMATS[form].config is not None and form == "nvfp4":
        (folder / "hf_quant_config.json").write_text(json.dumps(modelopt_file(FORMATS[form].config or {}), indent=2))
    shards = list(split(entries(config, form), most))
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        begin, ordered = header(shard)
        with (folder / name).open("wb") as file:
            file.write(begin)
            for entry in ordered:
                values = entry.draw(generator).contiguous()
                file.write(values.reshape(-1).view(torch.uint8).numpy().data)
        weight_map |= {entry.name: name for entry in shard}
    if len(shards) > 1:
        total = sum(data_bytes(entry) for shard in shards for entry in shard)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


def modelopt_file(scheme: dict[str, Any]) -> dict[str, Any]:
    """hf_quant_config.json, which says the same as quantization_config in other words."""
    return {
        "producer": {"name": "modelopt"},
        "quantization": {
            "quant_algo": scheme["quant_algo"],
            "kv_cache_quant_algo": "FP8",
            "group_size": 16,
            "exclude_modules": scheme["ignore"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=FORMATS, default="nvfp4")
    parser.add_argument("--size", choices=_SIZES, default="tiny")
    parser.add_argument("--config", type=Path, help="a config.json whose sizes to take instead of --size")
    parser.add_argument("--shard-bytes", type=int, default=10_000_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text()) if arguments.config else _SIZES[arguments.size]()
    config.pop("quantization_config", None)
    write(arguments.folder, config, arguments.format, arguments.shard_bytes, arguments.seed)
    for file in sorted(arguments.folder.iterdir()):
        print(f"{file.stat().st_size:>14,}  {file.name}")


if __name__ == "__main__":
    main()
