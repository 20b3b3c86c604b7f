"""What is left to say, and to do, when a kernel broke off."""

from __future__ import annotations

import torch

from dgemma_cli.errors import NoDevice
from dgemma_cli.model.kernel_terms import VARIABLE

_MESSAGE = 160  # characters of a foreign message that are passed on
_WITHOUT = f"Without Triton's kernels, slower: {VARIABLE}=reference"


def words(error: Exception) -> str:
    """An error of a compiler, a driver, a library, in a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_MESSAGE]}"


def recover(device: torch.device, trouble: str) -> None:
    """Raises NoDevice if the device computes nothing more: what broke it breaks all that comes after it."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError:
        raise NoDevice(f"Triton's kernels broke off on {device}: {trouble}.", _WITHOUT) from None
