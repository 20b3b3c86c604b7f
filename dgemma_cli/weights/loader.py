"""Fill a model with the weights of a checkpoint folder, tensor by tensor, straight from the mapped files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dgemma_cli.errors import CheckpointError, UsageError
from dgemma_cli.model.config import ModelConfig, read_json
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.model.model import Model
from dgemma_cli.weights.layout import EMBEDDING, TIED_HEAD, VISION_PREFIXES, Slot, slots
from dgemma_cli.weights.shards import Stored, read_folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PLAIN = ("BF16", "F16", "F32")

Progress = Callable[[int, int], None]


def load_model(folder: Path, device: str, dtype: str, progress: Progress | None = None) -> Model:
    """Build the model of ``folder`` on ``device`` ("cpu", "cuda", "cuda:1") in ``dtype`` (a key of DTYPES).

    progress: called with the bytes loaded so far and in all. Every tensor of the checkpoint is used or belongs to the
    vision tower (``model.skipped`` counts those); every parameter is filled. Raises CheckpointError or
    ModelUnavailable, naming file and tensor, before anything is returned.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}.")
    parsed = read_json(folder / "config.json")
    config = ModelConfig.from_dict(parsed)
    refuse_quantised(parsed)
    stored = read_folder(folder)
    plan = list(slots(config))
    skipped = check_layout(plan, stored)
    with torch.device("meta"):
        model = Model(config)
    model = model.to(DTYPES[dtype]).to_empty(device=device).requires_grad_(False).eval()
    model.skipped = skipped
    model.defaults = GenerationDefaults.from_folder(folder)
    _fill(model, plan, stored, progress)
    return model


def refuse_quantised(config: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a checkpoint whose weights are packed: reading them as numbers would give noise."""
    scheme = config.get("quantization_config")
    if scheme:
        method = scheme.get("quant_method") if isinstance(scheme, Mapping) else scheme
        raise CheckpointError(
            f"This checkpoint is quantised ({method!r}), which this version cannot load.",
            "Use the plain bf16 checkpoint: google/diffusiongemma-26B-A4B-it",
        )


def check_layout(plan: list[Slot], stored: Mapping[str, Stored]) -> int:
    """Compare what the model needs with what the files hold, by names, shapes and dtypes.

    Returns the number of vision tensors, which are skipped. Raises CheckpointError with the names otherwise.
    """
    needed = {slot.tensor for slot in plan}
    missing = [slot.tensor for slot in plan if slot.tensor not in stored]
    if missing:
        raise CheckpointError(f"The checkpoint lacks {_listed(missing)}.")
    vision = [name for name in stored if name.startswith(VISION_PREFIXES)]
    left = sorted(set(stored) - needed - set(vision) - {TIED_HEAD})
    if left:
        raise CheckpointError(f"The checkpoint holds {_listed(left)}, which the model does not know.")
    for slot in plan:
        found = stored[slot.tensor]
        if found.shape != slot.shape:
            shapes = f"has shape {list(found.shape)}, the configuration says {list(slot.shape)}"
            raise CheckpointError(f"{found.file.name}: {slot.tensor} {shapes}.")
        if found.dtype not in _PLAIN:
            raise CheckpointError(f"{found.file.name}: {slot.tensor} is {found.dtype}; {' or '.join(_PLAIN)} expected.")
    return len(vision)


def _fill(model: Model, plan: list[Slot], stored: Mapping[str, Stored], progress: Progress | None) -> None:
    parameters = dict(model.named_parameters())
    filled = dict.fromkeys(parameters, 0)
    total = sum(stored[slot.tensor].size for slot in plan)
    done = 0
    with ExitStack() as files:
        opened: dict[Path, Any] = {}

        def read(name: str) -> torch.Tensor:
            file = stored[name].file
            if file not in opened:
                try:
                    opened[file] = files.enter_context(safe_open(str(file), framework="pt"))
                except (SafetensorError, OSError) as error:
                    raise CheckpointError(f"{file} cannot be read: {error}") from None
            tensor: torch.Tensor = opened[file].get_tensor(name)
            return tensor

        for slot in plan:
            parameter = parameters[slot.parameter]
            rows = slot.shape[0]
            parameter[slot.first_row : slot.first_row + rows].copy_(read(slot.tensor))
            filled[slot.parameter] += rows
            done += stored[slot.tensor].size
            if progress is not None:
                progress(done, total)
        if TIED_HEAD in stored and not torch.equal(read(TIED_HEAD), read(EMBEDDING)):
            raise CheckpointError(f"{TIED_HEAD} differs from {EMBEDDING}: an untied head is not supported.")
    for name, parameter in parameters.items():
        if filled[name] != parameter.shape[0]:
            raise CheckpointError(f"{filled[name]} of {parameter.shape[0]} rows of {name} were filled.")


def _listed(names: list[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more tensors" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
