"""A tiny random model, and one whose replies are scripted by its weights: no checkpoint, no download."""

from __future__ import annotations

import torch

from dgemma_cli.model.config import LayerConfig, ModelConfig, RotaryConfig
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.model.model import Model

EOS = 1


def config(canvas: int = 8, context: int = 256, vocab: int = 37) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=24,
        moe_intermediate_size=16,
        num_experts=4,
        top_k_experts=2,
        layers=(LayerConfig(True, 2, 1, 16), LayerConfig(False, 2, 1, 32)),
        sliding_window=12,
        rotary_sliding=RotaryConfig(10_000.0, 1.0),
        rotary_full=RotaryConfig(1_000_000.0, 0.25),
        rms_norm_eps=1e-6,
        logit_softcap=30.0,
        canvas_length=canvas,
        max_context=context,
    )


def random_model(seed: int = 0, eos_ids: frozenset[int] = frozenset(), **sizes: int) -> Model:
    torch.manual_seed(seed)
    model = Model(config(**sizes)).requires_grad_(False).eval()
    model.defaults = GenerationDefaults(steps=6, eos_ids=eos_ids)
    return model


class ScriptedModel(Model):
    """Its logits are sure of ``script``, block after block; a canvas always settles in two steps."""

    def __init__(self, script: list[list[int]], **sizes: int) -> None:
        super().__init__(config(**sizes))
        self.requires_grad_(False).eval()
        self.defaults = GenerationDefaults(eos_ids=frozenset({EOS}))
        self.script = script
        self.prompt = 0
        self.encoded: list[int] = []

    def encode(self, ids: torch.Tensor, cache: object) -> None:
        self.encoded.append(len(ids))
        self.prompt = self.prompt or len(ids)
        super().encode(ids, cache)  # type: ignore[arg-type]

    def denoise(self, canvas: torch.Tensor, cache: object, soft: torch.Tensor | None) -> torch.Tensor:
        block = (cache.length - self.prompt) // self.config.canvas_length  # type: ignore[attr-defined]
        logits = torch.full((self.config.canvas_length, self.config.vocab_size), -30.0)
        logits[torch.arange(self.config.canvas_length), torch.tensor(self.script[block])] = 30.0
        return logits.expand(*canvas.shape, -1).clone()
