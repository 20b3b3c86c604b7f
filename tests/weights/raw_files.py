"""Safetensors files as plain bytes, read and written without the code under test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import make_synthetic
import synthetic_tensors

Raw = dict[str, tuple[str, list[int], bytes]]  # name -> dtype, shape, values
Header = dict[str, Any]


def checkpoint(folder: Path, form: str = "bf16", most: int = 10**9, **text: Any) -> Path:
    """A tiny checkpoint; ``text`` replaces values of its text_config."""
    config = synthetic_tensors.tiny()
    config["text_config"] |= text
    return make_synthetic.write(folder, config, form, most)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def take_apart(file: Path) -> tuple[Header, bytes]:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(file: Path, header: Header | bytes, values: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + values)


def read(file: Path) -> Raw:
    header, values = take_apart(file)
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], values[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


def write(file: Path, tensors: Raw) -> None:
    header, values = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(values), len(values) + len(data)]}
        values += data
    put_together(file, header, values)


def change(file: Path, edit: Callable[[Raw], None]) -> None:
    tensors = read(file)
    edit(tensors)
    write(file, tensors)


def change_header(file: Path, edit: Callable[[Header], None]) -> None:
    header, values = take_apart(file)
    edit(header)
    put_together(file, header, values)


def change_json(file: Path, edit: Callable[[Any], None]) -> None:
    parsed = json.loads(file.read_text())
    edit(parsed)
    file.write_text(json.dumps(parsed))


def all_tensors(folder: Path) -> Iterator[tuple[str, tuple[str, list[int], bytes]]]:
    for file in shards(folder):
        yield from read(file).items()
