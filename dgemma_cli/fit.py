"""How a model is made to fit: packed into fewer bits, then with experts in the host's memory. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from dgemma_cli.errors import CheckpointError, UsageError
from dgemma_cli.machine import Gpu, Machine
from dgemma_cli.memory import USUAL, Footprint, Kind, Needs, Work
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.model.kernel_terms import asked_kernels, foreseen_obstacle
from dgemma_cli.weights.recipe import AS_STORED, Recipe, recipe

Fit: TypeAlias = Literal["auto", "off"] | int
"""auto: whatever the free memory takes; off: as it is stored or not at all; a number of bytes caps what may be used."""

# What is tried, in this order. What a checkpoint has in as few bits already stays as it is.
_RUNGS = (
    AS_STORED,
    recipe(dense="8bit"),
    recipe(dense="4bit"),
    recipe(experts="nvfp4"),
    recipe(experts="nvfp4", dense="8bit"),
    recipe(experts="nvfp4", dense="4bit"),
)
TRIVIAL = 250_000_000  # bytes of weights that are loaded without a question: less than Python and torch take
_FEWEST = 3  # layers in the host's memory: two of them are on the device at any time
# What the host must keep for the process and for the pieces being read, beside experts that stay in its memory.
_HOST = 3_000_000_000
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_fit(text: str) -> Fit:
    """ "auto", "off", or a size: "16GB", "15.5 GiB", "900B". Raises UsageError for anything else."""
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word == "off":
        return "off"
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*([kmgt]i?)b?|(\d{1,15})b", word)
    if found is not None and int(found[3] or 0):
        return int(found[3])
    if found is None or float(found[1] or 0) == 0:
        raise UsageError(f"--fit takes auto, off or a size, not {text!r:.40}.", "For a card of 16 GB: --fit 16GB")
    return round(float(found[1]) * _UNITS[found[2]])


def written(fit: Fit) -> str:
    """What ``parse_fit`` reads as ``fit``."""
    return fit if isinstance(fit, str) else f"{fit}B"


@dataclass(frozen=True, slots=True)
class FitPlan:
    """How a model is loaded: what is packed anew, and how many of the last layers keep their experts in the host's
    memory. packed: the former in words; longest: tokens of context that the room allows.
    """

    recipe: Recipe
    offloaded: int
    packed: str
    needs: Needs
    longest: int

    def __str__(self) -> str:
        """In words: "attention, mlp nvfp4; embedding int8"; "as stored" if nothing is changed."""
        moved = f"experts of the last {self.offloaded} layers in the host's memory" if self.offloaded else ""
        return "; ".join(filter(None, (self.packed, moved))) or "as stored"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"text": str(self), "offloaded_layers": self.offloaded, "needs": self.needs.as_dict()}

    @property
    def as_stored(self) -> bool:
        """Nothing is changed."""
        return not (self.packed or self.offloaded)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model runs: a GPU, or the CPU. room: its free bytes; host_room: bytes of the host's memory that experts
    may take, 0 where that is no other memory.
    """

    gpu: Gpu | None
    room: int
    host_room: int

    @property
    def kind(self) -> Kind:
        """Of device."""
        return "cpu" if self.gpu is None else "cuda"

    def __str__(self) -> str:
        """As torch calls it."""
        return "cpu" if self.gpu is None else f"cuda:{self.gpu.index}"


def place_of(machine: Machine, device: str) -> Place:
    """What ``device`` means on a machine, "auto" the GPU with the most free memory; the CPU where there is none."""
    gpu = None
    if device == "auto":
        gpu = max(machine.gpus, key=lambda gpu: gpu.free, default=None)
    elif device != "cpu":
        index = int(device.partition(":")[2] or 0)
        gpu = next((gpu for gpu in machine.gpus if gpu.index == index), None)
    if gpu is None:
        return Place(None, machine.free, 0)
    return Place(gpu, gpu.free, 0 if gpu.unified else machine.free - _HOST)


def plan(
    footprint_of: Callable[[Recipe], Footprint], context: int, place: Place, fit: Fit, work: Work = USUAL
) -> FitPlan | None:
    """The first way in which ``context`` tokens fit; None if there is none.

    footprint_of: of the model packed anew; may raise CheckpointError if it cannot be packed so. On a CPU, "auto"
    changes nothing.
    """
    kind, room = place.kind, place.room if isinstance(fit, str) else min(place.room, fit)
    changes = fit != "off" and not (fit == "auto" and kind == "cpu")
    stored = footprint = footprint_of(AS_STORED)
    for tried, footprint in _distinct(footprint_of, _RUNGS if changes else _RUNGS[:1]):
        needs = footprint.needs(context, kind, work=work)
        if needs.total <= room:
            longest = footprint.longest_context(room, kind, work=work)
            return FitPlan(tried, 0, _told(stored, footprint), needs, longest)
    if not changes or kind == "cpu" or not footprint.experts:
        return None
    for offloaded in range(_FEWEST, len(footprint.config.layers) + 1):
        needs = footprint.needs(context, kind, offloaded, work)
        if needs.total <= room and needs.host <= place.host_room:
            longest = footprint.longest_context(room, kind, offloaded, work)
            return FitPlan(tried, offloaded, _told(stored, footprint), needs, longest)
    return None


def work_on(work: Work, machine: Machine, gpu: Gpu | None, config: ModelConfig, dtype: str) -> Work:
    """``work`` on a GPU or, without one, the CPU: with Triton's kernels, as far as can be foreseen."""
    if gpu is None or not machine.triton or asked_kernels() == "reference":
        return replace(work, triton=False)
    return replace(work, triton=work.triton and foreseen_obstacle(gpu.capability, dtype, config) is None)


def _told(stored: Footprint, packed: Footprint) -> str:
    """What is packed anew, in words."""
    parts: dict[str, list[str]] = {}
    for (part, before), (_, after) in zip(stored.formats, packed.formats, strict=True):
        if after != before:
            parts.setdefault(after, []).append(part)
    return "; ".join(f"{', '.join(names)} {form}" for form, names in parts.items())


def _distinct(
    footprint_of: Callable[[Recipe], Footprint], recipes: tuple[Recipe, ...]
) -> Iterator[tuple[Recipe, Footprint]]:
    """Those that are possible and take less than the ones before them."""
    least: int | None = None
    for each in recipes:
        try:
            footprint = footprint_of(each)
        except CheckpointError:
            if each == AS_STORED:
                raise
            continue
        if least is None or footprint.weights < least:
            least = footprint.weights
            yield each, footprint
