"""The published network and its checkpoints: so memory can be told before anything is fetched. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_cli.model.config import LayerConfig, ModelConfig, RotaryConfig
from dgemma_cli.weights.formats import FP8Format, Int4Format, NVFP4Format
from dgemma_cli.weights.scheme import Group, Scheme

_SLIDING = LayerConfig(sliding=True, num_heads=16, num_kv_heads=8, head_dim=256)
_FULL = LayerConfig(sliding=False, num_heads=16, num_kv_heads=2, head_dim=512)

NETWORK = ModelConfig(
    vocab_size=262_144,
    hidden_size=2816,
    intermediate_size=2112,
    moe_intermediate_size=704,
    num_experts=128,
    top_k_experts=8,
    layers=(*(_SLIDING,) * 5, _FULL) * 5,
    sliding_window=1024,
    rotary_sliding=RotaryConfig(10_000.0, 1.0),
    rotary_full=RotaryConfig(1_000_000.0, 0.25),
    rms_norm_eps=1e-6,
    logit_softcap=30.0,
    canvas_length=256,
    max_context=262_144,
)


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint of NETWORK. download: bytes of its weight files, to the nearest 0.01 GB where not all digits are
    known.
    """

    scheme: Scheme
    download: int


_REST = ("re:.*router.*", "re:.*self_conditioning.*")
_ATTENTION, _MLP = "re:.*self_attn.*", "re:.*[.]mlp[.].*"


# By the names of the catalog.
CHECKPOINTS = {
    "diffusiongemma:nvfp4": Published(
        Scheme((Group(("Linear",), NVFP4Format(compressed=False)),), (*_REST, _ATTENTION, _MLP)), 18_823_855_888
    ),
    "diffusiongemma:nvfp4-redhat": Published(
        Scheme((Group(("Linear",), NVFP4Format(compressed=True)),), (*_REST, _ATTENTION)), 18_050_000_000
    ),
    "diffusiongemma:int4": Published(Scheme((Group(("Linear",), Int4Format()),), (*_REST, _MLP)), 17_220_000_000),
    "diffusiongemma:fp8": Published(Scheme((Group(("Linear",), FP8Format()),), _REST), 27_230_000_000),
    "diffusiongemma:bf16": Published(Scheme(), 51_647_562_456),
}
