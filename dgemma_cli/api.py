"""``dgemma_cli.load``: from a name to a model."""

from __future__ import annotations

import torch

from dgemma_cli.catalog.resolve import resolve
from dgemma_cli.errors import NoDevice
from dgemma_cli.model.model import Model
from dgemma_cli.weights.loader import Progress, load_model


def load(name: str, device: str = "cpu", dtype: str = "bfloat16", progress: Progress | None = None) -> Model:
    """Load a model by catalog name, Hub id or folder.

    device: "cpu", "cuda" or "cuda:N"; dtype: "float32" or "bfloat16"; neither is ever changed silently.
    progress: called with the bytes loaded and the bytes in all. Raises ModelUnavailable, CheckpointError, NoDevice.
    """
    if device != "cpu":
        check_device(device)
    return load_model(resolve(name).folder, device, dtype, progress)


def check_device(device: str) -> None:
    """Raises NoDevice, saying why, unless ``device`` can be used."""
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
