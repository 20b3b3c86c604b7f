"""The shapes that random weights come in."""

from __future__ import annotations

from dgemma_cli.bench.choices import Size, check_formats, formats
from dgemma_cli.catalog import known
from dgemma_cli.catalog.names import NANO_FOLDER
from dgemma_cli.model.config import LayerConfig, ModelConfig, RotaryConfig
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK
from dgemma_cli.weights.scheme import Scheme

_SLIDING = LayerConfig(sliding=True, num_heads=8, num_kv_heads=4, head_dim=128)
_FULL = LayerConfig(sliding=False, num_heads=8, num_kv_heads=2, head_dim=256)

MINI = ModelConfig(
    vocab_size=32_768,
    hidden_size=1024,
    intermediate_size=768,
    moe_intermediate_size=256,
    num_experts=64,
    top_k_experts=8,
    layers=(*(_SLIDING,) * 5, _FULL) * 2,
    sliding_window=1024,
    rotary_sliding=RotaryConfig(10_000.0, 1.0),
    rotary_full=RotaryConfig(1_000_000.0, 0.25),
    rms_norm_eps=1e-6,
    logit_softcap=30.0,
    canvas_length=256,
    max_context=32_768,
)


def config_of(size: Size) -> ModelConfig:
    """The shape of a size."""
    if size is Size.NANO:
        return ModelConfig.from_folder(NANO_FOLDER)
    return NETWORK if size is Size.FULL else MINI


def default_format(size: Size) -> str:
    """How the weights of a size are stored unless something else is asked: the full one as it is mostly run."""
    return formats()[0] if size is Size.FULL else "bf16"


def scheme_of(form: str) -> Scheme:
    """How a published format stores its weights. Raises UsageError for a name that is none."""
    check_formats((form,))
    return CHECKPOINTS[f"{known.DEFAULT}:{form}"].scheme
