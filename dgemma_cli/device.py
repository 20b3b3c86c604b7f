"""Which device and number format a run takes, where the user leaves it to us."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from dgemma_cli.api import check_device

# Stored weights of a small model, in bytes. On two cores nano takes 14 ms a step in float32 and 33 in bfloat16; and as
# soon as something else keeps a core busy, its short operations wait for their second thread 20 times as long.
_SMALL = 64 << 20


@dataclass(frozen=True, slots=True)
class Choice:
    """device: "cpu", "cuda" or "cuda:N"; dtype: "float32" or "bfloat16". why_device, why_dtype: in words.

    fit: what was changed so that the model fits; rounding: the relative errors of what was packed anew for it.
    """

    device: str
    dtype: str
    why_device: str
    why_dtype: str
    fit: str = "as stored"
    rounding: str = ""


def choose(device: str, dtype: str, folder: Path) -> Choice:
    """Settle "auto" for the model in ``folder``, as ``choose_for`` does."""
    return choose_for(device, dtype, sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def choose_for(device: str, dtype: str, stored: int) -> Choice:
    """Settle "auto" for a model of ``stored`` bytes of weights. A device or dtype that was named is taken or refused
    (NoDevice), never changed.

    device auto: CUDA if there is a device, else the CPU. dtype auto: bfloat16, as the published checkpoints are stored,
    but float32 for a small model on the CPU. A small model on the CPU also gets one thread, unless OMP_NUM_THREADS says
    otherwise.
    """
    why_device = why_dtype = "as asked"
    if device == "auto":
        found = torch.cuda.is_available()
        device = "cuda" if found else "cpu"
        why_device = "auto: a CUDA device is visible" if found else "auto: no CUDA device is visible"
    check_device(device)
    small = device == "cpu" and stored < _SMALL
    if dtype == "auto":
        dtype = "float32" if small else "bfloat16"
        why_dtype = "auto: a small model on the CPU" if small else "auto: as stored"
    if small and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return Choice(device, dtype, why_device, why_dtype)
