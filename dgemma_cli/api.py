"""``dgemma_cli.load``: from a name to a model. Imports torch only when it is called."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

from dgemma_cli import memory
from dgemma_cli.catalog.resolve import resolve
from dgemma_cli.engine.options import CONTEXT
from dgemma_cli.errors import NoDevice, OutOfMemory, UsageError
from dgemma_cli.fit import TRIVIAL, Fit, FitPlan, parse_fit, place_of, plan, work_on
from dgemma_cli.machine import look
from dgemma_cli.units import size
from dgemma_cli.weights.checkpoint import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from dgemma_cli.model.model import Model
    from dgemma_cli.weights.loader import Progress


def load(
    name: str,
    device: str = "cpu",
    dtype: str = "bfloat16",
    progress: Progress | None = None,
    fit: str = "off",
    context: int = CONTEXT,
) -> Model:
    """Load a model by catalog name, Hub id or folder.

    device: "cpu", "cuda" or "cuda:N"; dtype: "float32" or "bfloat16"; neither is ever changed silently.
    progress: called with the bytes loaded and the bytes in all.
    fit: "off" loads the model as it is stored; "auto" packs it into fewer bits, and keeps experts in the host's memory,
    as far as the device's free memory asks for it (on the CPU it changes nothing); a size such as "16GB" caps what may
    be used, on the CPU too. What was changed stands in ``model.fit``. context: tokens of prompt and reply to have room
    for; not more than the model has. A GPU that has to do without its fast kernels is told of in a RuntimeWarning.

    Raises ModelUnavailable, CheckpointError, NoDevice, UsageError; and OutOfMemory, before anything is loaded, if the
    model does not fit so.
    """
    wanted = parse_fit(fit)
    if context < 1:
        raise UsageError(f"context must be at least 1, not {context}.")
    folder = resolve(name).folder
    checkpoint = read_checkpoint(folder)
    if device != "cpu":
        check_device(device)
    stored = sum(each.size for each in checkpoint.stored.values())
    trivial = isinstance(wanted, str) and stored < TRIVIAL
    way = None if trivial else _way(name, checkpoint, device, dtype, wanted, context)

    from dgemma_cli.engine.trust import proven
    from dgemma_cli.weights.loader import load_model

    if way is None:
        return proven(load_model(checkpoint, device, dtype, progress, tell=_warn), _warn)
    model = load_model(checkpoint, device, dtype, progress, way.recipe, offloaded=way.offloaded, tell=_warn)
    model = proven(model, _warn)
    model.fit = str(way)
    return model


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)


def _way(name: str, checkpoint: Checkpoint, device: str, dtype: str, fit: Fit, context: int) -> FitPlan | None:
    """How the model is made to fit; None, as it is stored, where the device's memory is not told and nothing is asked.

    Raises OutOfMemory, or NoDevice where memory is not told and must be known.
    """
    machine = look(gpus_too=device != "cpu")
    place = place_of(machine, device)
    gpu, kind, room = place.gpu, place.kind, place.room
    if device != "cpu" and gpu is None:
        if fit == "off":
            return None
        raise NoDevice(f"The free memory of {device} is not known: {machine.no_gpu}", "Load it with fit='off'.")
    footprint_of = partial(memory.of_checkpoint, checkpoint, "float32" if dtype == "float32" else "bfloat16")
    stored = footprint_of()
    context = min(context, stored.config.max_context)
    work = work_on(memory.USUAL, machine, gpu, stored.config, stored.dtype)

    def attempt(fit: Fit) -> FitPlan | None:
        return plan(lambda recipe: footprint_of(recipe=recipe), context, place, fit, work)

    found = attempt(fit)
    if found is not None:
        return found
    needed = stored.needs(context, kind, work=work).total
    allowed = "" if isinstance(fit, str) else f", {size(fit)} of them allowed by fit"
    # On the CPU only a size changes anything.
    other: Fit = room if kind == "cpu" else "auto"
    better = attempt(other) if isinstance(fit, str) else None
    words = f"{room // 10**6}MB" if kind == "cpu" else "auto"
    raise OutOfMemory(
        f"{name} needs {size(needed)} with {context:,} tokens of context, {size(room)} are free on {device}{allowed}.",
        f"dgemma check {name} tells what would fit." if better is None else f"It fits with fit={words!r}: {better}",
    )


def check_device(device: str) -> None:
    """Raises NoDevice, saying why, unless ``device`` can be used."""
    import torch

    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise NoDevice(f"{device!r} is no device.", "Use cpu, cuda or cuda:N.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise NoDevice(f"dgemma does not run on {chosen.type!r}.", "Use cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        if torch.version.cuda is None:
            raise NoDevice("This torch is built without CUDA.", "Install a CUDA build of torch, or use --device cpu.")
        raise NoDevice("No CUDA device is visible.", "See nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise NoDevice(f"There is no {device}: {torch.cuda.device_count()} CUDA devices are visible.")
