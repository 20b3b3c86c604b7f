"""Models of any published format with random weights, made on the device from a seed: nothing large travels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.fp8 import FP8
from dgemma_cli.kernels.int4 import Int4
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.nvfp4 import E2M1, NVFP4
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.model.config import LayerConfig, ModelConfig, RotaryConfig
from dgemma_cli.model.model import Model
from dgemma_cli.weights.build import build
from dgemma_cli.weights.layout import make_plan
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK
from dgemma_cli.weights.recipe import recipe

_SLIDING, _FULL = LayerConfig(True, 4, 2, 16), LayerConfig(False, 4, 1, 32)
TINY = ModelConfig(
    vocab_size=211,
    hidden_size=64,
    intermediate_size=96,
    moe_intermediate_size=32,
    num_experts=8,
    top_k_experts=2,
    layers=(_SLIDING, _SLIDING, _FULL),
    sliding_window=64,
    rotary_sliding=RotaryConfig(10_000.0, 1.0),
    rotary_full=RotaryConfig(1_000_000.0, 0.25),
    rms_norm_eps=1e-6,
    logit_softcap=30.0,
    canvas_length=16,
    max_context=4096,
)


def random_model(config: ModelConfig, form: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Model:
    """form: the name of a published format, "nvfp4", "int4", "fp8", "bf16", "nvfp4-redhat", or one of these with its
    dense part in fewer bits, as --fit packs it: "nvfp4+8bit", "nvfp4+4bit".
    """
    stored, _, dense = form.partition("+")
    scheme = CHECKPOINTS[f"diffusiongemma:{stored}"].scheme
    plan = make_plan(config, recipe(dense=dense).over(scheme) if dense else scheme, lambda _: None)
    model = build(config, plan, str(device), dtype)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _fill_plain(name, parameter, generator)
        for module in model.modules():
            if isinstance(module, Packed):
                _fill_packed(module, generator)
    return model


def published(tiny: bool) -> ModelConfig:
    """The published network's sizes, or tiny ones of the same make."""
    return TINY if tiny else NETWORK


def narrow_routing(model: Model, distinct: int) -> None:
    """Leave ``distinct`` experts of each layer that tokens go to: the others' scores become 0, which is never among the
    highest.
    """
    for layer in model.stack.layers:
        weight = _weight(layer.get_submodule("router.proj"))
        with torch.no_grad():
            weight[distinct:] = 0


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _fill_plain(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    if parameter.dim() > 1:
        parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    elif name.endswith(("q_norm.weight", "k_norm.weight")):
        parameter.fill_(len(parameter) ** -0.25)  # attention has no 1/sqrt(d)
    else:
        parameter.normal_(1, 0.05, generator=generator)


def _fill_packed(packed: Packed, generator: torch.Generator) -> None:
    """Codes of all values, and scales that give a matrix the spread of a plain one."""
    spread = packed.columns**-0.5
    match packed:
        case NVFP4():
            _any_bits(packed.codes, generator)
            near = 96.0  # of the group scales
            packed.scale.copy_(
                torch.empty_like(packed.scale, dtype=torch.float32).uniform_(64, 128, generator=generator)
            )
            matrix_scale = spread / _rms(torch.tensor(E2M1)) / near
            packed.matrix_scale.fill_(1 / matrix_scale if packed.divides else matrix_scale)
        case Int4():
            _any_bits(packed.codes, generator)
            packed.scale.fill_(spread / _rms(torch.arange(-8.0, 8.0)))
        case Int8():
            _any_bits(packed.codes, generator)
            packed.scale.fill_(spread / _rms(torch.arange(-128.0, 128.0)))
        case FP8():
            codes = packed.codes.view(torch.uint8)
            codes.random_(0x30, 0x48, generator=generator)  # 0.5 to 4: no zeros, nothing that is not finite
            codes.bitwise_or_(torch.empty_like(codes).random_(0, 2, generator=generator).mul_(128))  # signs
            magnitudes = torch.arange(0x30, 0x48, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
            packed.scale.fill_(spread / _rms(magnitudes))
        case _:
            raise TypeError(f"no random weights for {type(packed).__name__}")


def _any_bits(codes: Tensor, generator: torch.Generator) -> None:
    codes.view(torch.uint8).random_(0, 256, generator=generator)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
