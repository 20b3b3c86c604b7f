"""Which device and number format a run takes, where the user leaves it to us."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dgemma_cli.api import check_device


@dataclass(frozen=True, slots=True)
class Choice:
    """device: "cpu", "cuda" or "cuda:N"; dtype: "float32" or "bfloat16". why: what decided, in words."""

    device: str
    dtype: str
    why: str


def choose(device: str, dtype: str) -> Choice:
    """Settle "auto". A device or dtype that was named is taken or refused (NoDevice), never changed.

    device auto: CUDA if there is a device, else the CPU. dtype auto: bfloat16, as the published checkpoints are stored.
    """
    why = "as asked"
    if device == "auto":
        found = torch.cuda.is_available()
        device = "cuda" if found else "cpu"
        why = "auto: a CUDA device is visible" if found else "auto: no CUDA device is visible"
    check_device(device)
    return Choice(device, "bfloat16" if dtype == "auto" else dtype, why)
