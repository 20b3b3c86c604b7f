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

from dgemma_cli.model.config import ModelConfig
from dgemma_cli.weights.layout import slots

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


def export(state: dict[str, torch.Tensor], vocabulary: int, out: Path) -> None:
    """state: the model's parameters under the package's names; fused ones are cut into the published tensors."""
    settings = config(vocabulary)
    tensors = {}
    for slot in slots(ModelConfig.from_dict(settings)):
        whole = state[slot.parameter]
        part = whole[slot.first_row : slot.first_row + slot.shape[0]]
        if tuple(part.shape) != slot.shape:
            raise ValueError(f"{slot.tensor} is {tuple(part.shape)}, not {slot.shape}")
        tensors[slot.tensor] = part.to(torch.bfloat16).contiguous()
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
