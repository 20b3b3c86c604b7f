"""Models of random weights, made in memory: to measure what a step takes without fetching anything."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dgemma_cli.kernels.fp8 import FP8
from dgemma_cli.kernels.int4 import Int4
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.nvfp4 import E2M1, NVFP4
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.model.kernel_choice import choose_kernels
from dgemma_cli.model.kernel_terms import asked_kernels
from dgemma_cli.model.model import Model
from dgemma_cli.weights.build import build
from dgemma_cli.weights.layout import make_plan
from dgemma_cli.weights.scheme import Scheme

_ROOT_MEAN_SQUARE = math.sqrt(sum(value * value for value in E2M1) / len(E2M1))


def random_model(config: ModelConfig, scheme: Scheme, device: str, dtype: torch.dtype, seed: int = 0) -> Model:
    """A model of this shape and storage, with weights that keep activations in bounds and spread tokens over all
    experts, on the kernels that a checkpoint would have. Nothing ends its replies. What it writes is noise.
    """
    kernels = asked_kernels()
    model = build(config, make_plan(config, scheme, lambda _tensor: None), device, dtype)
    model.defaults = GenerationDefaults(eos_ids=frozenset())
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        _draw(name, parameter.data, generator)
    for module in model.modules():
        if isinstance(module, Packed):
            _draw_packed(module, generator)
    return choose_kernels(model, kernels)


def _draw(name: str, weight: Tensor, generator: torch.Generator) -> None:
    """Matrices keep the size of what they are given; norms and scales are 1. There is no 1/sqrt(d) in attention, so
    that the heads' norms have to make up for it.
    """
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        weight.fill_(weight.shape[0] ** -0.25)
    elif weight.dim() < 2:
        weight.fill_(1.0)
    else:
        weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)


def _draw_packed(packed: Packed, generator: torch.Generator) -> None:
    """Random codes, and constant scales that give their values the size they have in ``_draw``."""
    wanted = packed.columns**-0.5
    match packed:
        case NVFP4():
            _draw_bits(packed.codes, generator)
            packed.scale.fill_(1.0)
            matrix_scale = wanted / _ROOT_MEAN_SQUARE
            packed.matrix_scale.fill_(1 / matrix_scale if packed.divides else matrix_scale)
        case Int4():
            _draw_bits(packed.codes, generator)
            packed.scale.fill_(wanted / math.sqrt(sum((code - 8) ** 2 for code in range(16)) / 16))
        case Int8():
            _draw_bits(packed.codes, generator)
            packed.scale.fill_(wanted / math.sqrt(sum((code - 128) ** 2 for code in range(256)) / 256))
        case FP8():
            for matrix in packed.codes:  # one at a time: a whole stack in float32 would be four times as large
                matrix.copy_(torch.randn(matrix.shape, generator=generator, device=matrix.device))
            packed.scale.fill_(wanted)
        case _:
            raise AssertionError(f"no random values for {type(packed).__name__}")


def _draw_bits(codes: Tensor, generator: torch.Generator) -> None:
    """Any pattern of bits is a code."""
    codes.view(torch.uint8).random_(0, 256, generator=generator)
