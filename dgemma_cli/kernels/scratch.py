"""Memory that is worked in again and again: of fresh memory the system clears every page, which costs as much as the
arithmetic.
"""

from __future__ import annotations

import threading
from math import prod

import torch
from torch import Tensor


class Scratch:
    """Tensors by name, without values at first. What is taken under a name again, as whatever dtype, is the memory it
    had and what is there, unless it has grown. Tensors are kept as they were asked for: each call of torch, of a view
    too, is one more that threads queue for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[str, Tensor] = {}
        self._given: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}
        self._split: dict[tuple[str, tuple[int, ...], torch.dtype], tuple[Tensor, ...]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        key = name, shape, dtype
        if key not in self._given:
            size = prod(shape) * dtype.itemsize
            if name not in self._held or self._held[name].numel() < size:
                self._held[name] = torch.empty(size, dtype=torch.uint8, device=self._device)
                self._given = {key: given for key, given in self._given.items() if key[0] != name}
                self._split = {key: split for key, split in self._split.items() if key[0] != name}
            self._given[key] = self._held[name][:size].view(dtype).view(shape)
        return self._given[key]

    def split(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
        """What ``take`` gives, along its first dimension."""
        key = name, shape, dtype
        whole = self.take(name, shape, dtype)
        if key not in self._split:
            self._split[key] = whole.unbind()
        return self._split[key]


def scratch(device: torch.device) -> Scratch:
    """What the calling thread works in: kept on a CPU; elsewhere, and where gradients may be asked for what is made in
    it, a new one.
    """
    if device.type != "cpu" or torch.is_grad_enabled():
        return Scratch(device)
    found: Scratch | None = getattr(_OF_THREAD, "scratch", None)
    if found is None:
        found = _OF_THREAD.scratch = Scratch(device)
    return found


_OF_THREAD = threading.local()
