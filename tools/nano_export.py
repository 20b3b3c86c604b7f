"""Writes the embedded model's files from a training run: weights in bf16 under the published names, and the configs.

python tools/nano_export.py --run runs/nano --out dgemma_cli/nano
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from nano_batches import Tokens
from nano_config import GENERATION, config
from safetensors.torch import save_file
from torch import Tensor

from dgemma_cli.model.config import ModelConfig

TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 4096,
}


def export(state: dict[str, Tensor], vocabulary: int, out: Path) -> None:
    """state: the model's parameters under the package's names; fused ones are cut into the published tensors."""
    settings = config(vocabulary)
    shapes = ModelConfig.from_dict(settings).layers
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        owner, _, kind = name.removeprefix("stack.").rpartition(".")
        if owner.endswith("qkv_proj"):
            layer = shapes[int(owner.split(".")[1])]
            rows = [layer.num_heads * layer.head_dim] + [layer.num_kv_heads * layer.head_dim] * (1 + layer.sliding)
            for letter, part in zip("qkv", value.split(rows), strict=False):
                tensors[f"model.decoder.{owner.replace('qkv', letter)}.weight"] = part
        elif owner.endswith("gate_up_proj"):
            stem = "model.decoder." + owner.replace(".mlp", "" if owner.startswith("self_cond") else ".mlp")
            for part_name, part in zip(("gate", "up"), value.chunk(2), strict=True):
                tensors[f"{stem.replace('gate_up', part_name)}.weight"] = part
        elif kind == "encoder_scalar":
            tensors[f"model.encoder.language_model.{owner}.layer_scalar"] = value
        elif kind == "decoder_scalar":
            tensors[f"model.decoder.{owner}.layer_scalar"] = value
        else:
            plain = name.removeprefix("stack.").replace("self_conditioning.mlp.", "self_conditioning.")
            tensors[f"model.decoder.{plain}"] = value
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(tensors.items())}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for name, content in (
        ("config.json", settings),
        ("generation_config.json", GENERATION),
        ("tokenizer_config.json", TOKENIZER),
    ):
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/nano"))
    parser.add_argument("--out", type=Path, default=Path("dgemma_cli/nano"), help="holds tokenizer.json already")
    arguments = parser.parse_args()
    state = torch.load(arguments.run / "last.pt", map_location="cpu")
    export(state["model"], Tokens(arguments.out).size, arguments.out)
    size = (arguments.out / "model.safetensors").stat().st_size
    print(f"step {state['step']}: {size / 1e6:.2f} MB of weights in {arguments.out}")


if __name__ == "__main__":
    main()
