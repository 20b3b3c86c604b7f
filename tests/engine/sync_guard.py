"""The recorded loop under torch's own watch over a GPU: the host may not wait but for events."""

from __future__ import annotations

from collections.abc import Generator

import torch

from dgemma_cli.engine.denoise import Canvas, Task
from dgemma_cli.engine.events import Denoised
from dgemma_cli.engine.graphed import graphed


def watched(task: Task) -> Generator[Denoised, None, Canvas]:
    """A ``Denoiser``. What its caller does with the events is not watched."""
    steps = graphed(task)
    while True:
        torch.cuda.set_sync_debug_mode("error")
        try:
            event = next(steps)
        except StopIteration as end:
            canvas: Canvas = end.value
            return canvas
        finally:
            torch.cuda.set_sync_debug_mode("default")
        yield event
