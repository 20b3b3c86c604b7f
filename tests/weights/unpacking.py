"""Packed checkpoints taken apart by hand, in a few lines each, and written out as plain ones for transformers."""

from __future__ import annotations

import json
from pathlib import Path

import raw_files
import torch
from raw_files import checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["checkpoint", "dequantised", "plain_copy"]

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def dequantised(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the checkpoint by the name it would have unpacked, in float32 where it was packed."""
    tensors: dict[str, Tensor] = {}
    for file in raw_files.shards(folder):
        tensors |= load_file(file)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module = name.rpartition(".")[0]
        if f"{module}.weight_scale" not in tensors:
            found[name] = tensor
        elif name.endswith((".weight", ".weight_packed")):
            found[f"{module}.weight"] = matrix(tensors, module, tensor)
    return found


def matrix(tensors: dict[str, Tensor], module: str, codes: Tensor) -> Tensor:
    """The format shows in the tensors that there are."""
    scale = tensors[f"{module}.weight_scale"].float()
    if codes.dtype == torch.float8_e4m3fn:
        return codes.float() * scale
    if codes.dtype == torch.int32:
        bits = 32 * codes.shape[1] // int(tensors[f"{module}.weight_shape"][1])
        values = torch.stack([(codes >> shift) & (2**bits - 1) for shift in range(0, 32, bits)], dim=-1).flatten(1)
        return (values - 2 ** (bits - 1)) * scale.repeat_interleave({4: 32, 8: 64}[bits], dim=1)
    nibbles = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(1).long()
    values = torch.where(nibbles >= 8, -E2M1[nibbles % 8], E2M1[nibbles % 8]) * scale.repeat_interleave(16, dim=1)
    if f"{module}.weight_scale_2" in tensors:
        return values * tensors[f"{module}.weight_scale_2"]
    return values / tensors[f"{module}.weight_global_scale"]


def plain_copy(folder: Path, to: Path) -> Path:
    """The checkpoint in the plain layout, its packed weights as float32."""
    tensors = dequantised(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    text = config["text_config"]
    for layer in range(text["num_hidden_layers"]):
        prefix = f"model.decoder.layers.{layer}.experts."
        if f"{prefix}gate_up_proj" in tensors:
            continue
        alone = {
            kind: [tensors.pop(f"{prefix}{expert}.{kind}_proj.weight") for expert in range(text["num_experts"])]
            for kind in ("gate", "up", "down")
        }
        both = [torch.cat(pair) for pair in zip(alone["gate"], alone["up"], strict=True)]
        tensors[f"{prefix}gate_up_proj"] = torch.stack(both)
        tensors[f"{prefix}down_proj"] = torch.stack(alone["down"])
    to.mkdir()
    (to / "config.json").write_text(json.dumps(config))
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to
