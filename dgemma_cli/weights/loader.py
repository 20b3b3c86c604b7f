"""Fill a model with the weights of a checkpoint folder, as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from dgemma_cli.errors import CheckpointError, UsageError
from dgemma_cli.kernels.offload import Copier, CudaCopier
from dgemma_cli.model.kernel_choice import choose_kernels
from dgemma_cli.model.kernel_terms import asked_kernels
from dgemma_cli.model.model import Model
from dgemma_cli.model.offloading import offload
from dgemma_cli.weights.build import build
from dgemma_cli.weights.checkpoint import Checkpoint, read_checkpoint
from dgemma_cli.weights.layout import EMBEDDING, TIED_HEAD, Plan, Slot
from dgemma_cli.weights.reader import Job, fill, same_bytes
from dgemma_cli.weights.recipe import AS_STORED, Recipe
from dgemma_cli.weights.repack import Losses, changed, repack

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Progress = Callable[[int, int], None]


def load_model(
    source: Path | Checkpoint,
    device: str,
    dtype: str,
    progress: Progress | None = None,
    recipe: Recipe = AS_STORED,
    losses: Losses | None = None,
    offloaded: int = 0,
    copier: Copier | None = None,
    tell: Callable[[str], None] | None = None,
) -> Model:
    """Build the model of a checkpoint, or of its folder, in any published format.

    device: "cpu", "cuda" or "cuda:N". dtype (a key of DTYPES) is that of plain weights and of the arithmetic; packed
    weights stay packed. progress: called with the bytes loaded so far and in all. recipe: what is packed anew on the
    way; ``losses`` is told how well. offloaded: how many of the last layers keep their experts in the host's memory,
    from where ``copier`` brings them (by default CUDA's copies). tell: see ``choose_kernels``.

    Every tensor of the checkpoint is used or belongs to the vision tower (``model.skipped`` counts those); every
    parameter is filled. What computes the model hangs on the device and DGEMMA_KERNELS (``kernel_choice``). Raises
    CheckpointError or ModelUnavailable, naming file and tensor, before it returns.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}.")
    kernels = asked_kernels()
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    check_tied_head(checkpoint)
    plan = checkpoint.plan if recipe == AS_STORED else checkpoint.repacked(recipe)
    if offloaded:
        copier = copier or CudaCopier(torch.device(device))  # before any work: there may be no CUDA
    model = build(checkpoint.config, plan, device, DTYPES[dtype], offloaded)
    model.skipped = checkpoint.skipped
    model.defaults = checkpoint.defaults
    _fill(model, checkpoint, plan, progress, device, Losses() if losses is None else losses)
    model = choose_kernels(model, kernels, tell)
    if copier is not None:
        offload(model, offloaded, copier)
    return model


def check_tied_head(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if there is a head of its own: one that was written out must be the embedding again."""
    head, embedding = checkpoint.stored.get(TIED_HEAD), checkpoint.stored.get(EMBEDDING)
    if head is None:
        return
    if embedding is None or not same_bytes((TIED_HEAD, head), (EMBEDDING, embedding)):
        raise CheckpointError(
            f"{head.file.name}: {TIED_HEAD} differs from {EMBEDDING}; an untied head is not supported."
        )


def _fill(
    model: Model, checkpoint: Checkpoint, plan: Plan, progress: Progress | None, device: str, losses: Losses
) -> None:
    stored = checkpoint.stored
    places: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
    filled = dict.fromkeys(places, 0)
    jobs = []
    told: list[tuple[Slot, Tensor]] = []  # tensors that say something of others
    pairs = {} if plan is checkpoint.plan else changed(checkpoint.plan, plan)
    made: dict[str, Tensor] = {}  # where tensors go that are packed anew
    for slot in plan.slots:
        is_made = slot.tensor.rpartition(".")[0] in pairs
        if slot.target:
            place = places[slot.target][slot.place]
            if place.shape != slot.shape:
                place = place[slot.first_row : slot.first_row + slot.shape[0]]
            filled[slot.target] += prod(slot.shape)
            if is_made:
                made[slot.tensor] = place
                continue
        elif slot.part.equals and not is_made:
            place = torch.empty(slot.shape, dtype=torch.int64)
            told.append((slot, place))
        else:
            continue
        jobs.append(Job(slot.tensor, stored[slot.tensor], place, slot.part.check))
    for name, place in places.items():
        if filled[name] != place.numel():
            raise CheckpointError(f"{filled[name]} of {place.numel()} values of {name} are in the checkpoint.")

    def put(tensor: str, first: int, values: Tensor) -> None:
        if tensor in made:
            place = made[tensor]
            (place[first : first + len(values)] if place.ndim else place).copy_(values)

    fill(jobs, progress, repack(checkpoint, pairs, device, put, losses))
    for slot, values in told:
        if tuple(values.tolist()) != slot.part.equals:
            file = stored[slot.tensor].file.name
            raise CheckpointError(f"{file}: {slot.tensor} is {values.tolist()}, not {list(slot.part.equals)}.")
