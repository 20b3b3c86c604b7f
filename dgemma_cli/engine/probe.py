"""Looks at a model and its device from outside: bytes held and free, experts used, the peak of memory."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dgemma_cli.engine.events import BlockCommitted, BlockStarted
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.machine import host_memory
from dgemma_cli.model.model import Model

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def wait(device: torch.device) -> None:
    """Let ``device`` finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def threads() -> int:
    """On how many threads torch computes."""
    return torch.get_num_threads()


def free_memory(device: str) -> int:
    """Bytes that are free on "cpu", "cuda" or "cuda:N"."""
    if device == "cpu":
        return host_memory()[1]
    free: int = torch.cuda.mem_get_info(device)[0]
    return free


def weigh(model: Model) -> tuple[int, int, int]:
    """Bytes of the experts, of the embedding, and of everything else that a step reads.

    Weights that were laid out anew for the CPU are no parameters any more, and are not counted.
    """
    experts = embedding = rest = 0
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        size = tensor.numel() * tensor.element_size()
        if name.startswith("embed_tokens."):
            embedding += size
        elif ".experts." in name:
            experts += size
        elif not name.endswith("encoder_scalar"):
            rest += size
    return experts, embedding, rest


def experts_used(model: Model, ids: Sequence[int], options: Options) -> float | None:
    """How many different experts a layer uses in a denoising step, on average, over the first block behind ``ids``.

    None if the model runs without its router modules, so that nothing can be seen.
    """
    seen: list[int] = []

    def look(_module: nn.Module, _inputs: Any, chosen: tuple[torch.Tensor, torch.Tensor]) -> None:
        seen.append(chosen[1].unique().numel())

    routers = [module for name, module in model.named_modules() if name.endswith(".router")]
    handles = [router.register_forward_hook(look) for router in routers]
    try:
        with model.uncrewed():
            for event in generate(model, ids, options):
                if isinstance(event, BlockStarted):
                    seen.clear()  # those of the prompt
                elif isinstance(event, BlockCommitted):
                    break
    finally:
        for handle in handles:
            handle.remove()
    return sum(seen) / len(seen) if seen else None


class Peak:
    """The most memory this process held on a device, from one look to the next."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.read()

    def read(self) -> int:
        """Bytes at the peak since the last look: of tensors on a GPU, of the whole process on a CPU. Where the system
        does not let the mark be set back, since the process began.
        """
        if self._device.type == "cuda":
            most = torch.cuda.max_memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            return most
        most = _high_water()
        with suppress(OSError):
            _CLEAR.write_text("5")  # the high-water mark falls to what is held now
        return most


def _high_water() -> int:
    """Bytes. ru_maxrss would count the process that started this one too, as long as they shared their memory."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
