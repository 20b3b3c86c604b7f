"""The published checkpoints that dgemma knows by name."""

from __future__ import annotations

from dataclasses import dataclass

NANO = "nano"  # the model that comes with the package
DEFAULT = "diffusiongemma"
INSTEAD = "or try the small model that comes along: dgemma run -m nano"  # where a model is not here


@dataclass(frozen=True, slots=True)
class Known:
    """A published checkpoint. format: how its weights are stored."""

    name: str
    repository: str
    format: str
    note: str


# In the order in which plain "diffusiongemma" looks for one that is already on disk; the first is what it pulls.
KNOWN = (
    Known(
        "diffusiongemma:nvfp4",
        "nvidia/diffusiongemma-26B-A4B-it-NVFP4",
        "nvfp4",
        "experts in 4 bits, 18.8 GB",
    ),
    Known(
        "diffusiongemma:nvfp4-redhat",
        "RedHatAI/diffusiongemma-26B-A4B-it-NVFP4",
        "nvfp4",
        "experts and MLP in 4 bits, 18 GB",
    ),
    Known(
        "diffusiongemma:int4",
        "cyankiwi/diffusiongemma-26B-A4B-it-AWQ-INT4",
        "int4",
        "experts and attention in 4 bits, 17.2 GB",
    ),
    Known(
        "diffusiongemma:fp8",
        "RedHatAI/diffusiongemma-26B-A4B-it-FP8-dynamic",
        "fp8",
        "8 bits, 27.2 GB",
    ),
    Known(
        "diffusiongemma:bf16",
        "google/diffusiongemma-26B-A4B-it",
        "bf16",
        "the official checkpoint, 51.6 GB",
    ),
)


def named(name: str) -> tuple[Known, ...]:
    """The checkpoints ``name`` may mean, the preferred one first; none if the catalog does not know it."""
    if name == DEFAULT:
        return KNOWN
    return tuple(known for known in KNOWN if known.name == name)


def names() -> list[str]:
    """Every name of the catalog."""
    return [NANO, DEFAULT, *(known.name for known in KNOWN)]
