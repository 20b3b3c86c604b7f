"""Passes that several replies share: on a device bound by memory or by overhead, more canvases cost little more time.

Nobody waits for anybody: when one reply needs its logits, those that have asked for a pass by then come along, and find
theirs computed when it is their turn. With replies taken in turns, step by step, that is all of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator

import torch
from torch import Tensor

from dgemma_cli.engine.denoise import Canvas, Task, denoise
from dgemma_cli.engine.events import Denoised
from dgemma_cli.model.cache import KVCache
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model


class Sharing:
    """Runs canvases of several replies together, ``most`` of them in a pass.

    Their texts are those of passes alone but for rounding, which hangs on who else comes along: not for replies that a
    seed is to make again. Not for several threads at once.
    """

    def __init__(self, model: Model, most: int) -> None:
        self._model = model
        self._most = most
        self._asked: list[weakref.ref[_Pass]] = []  # a reply that is given up takes its own away
        self.passes = 0

    @property
    def possible(self) -> bool:
        """Whether this model runs canvases over different caches in one pass; recorded ones do not."""
        return self._most > 1 and not isinstance(self._model, FusedModel)

    def denoise(self, task: Task) -> Generator[Denoised, None, Canvas]:
        """A ``denoise.Denoiser``."""
        return denoise(task, self._ask)

    def _ask(self, task: Task, canvases: Tensor, softs: Tensor | None) -> Callable[[], Tensor]:
        if softs is None:  # as good as zeros, which the others have something else in place of
            shape = (*canvases.shape, self._model.config.hidden_size)
            softs = torch.zeros(shape, dtype=self._model.dtype, device=self._model.device)
        asked = _Pass(self, task.cache, canvases, softs)
        self._asked.append(weakref.ref(asked))
        return asked

    def run(self, first: _Pass) -> None:
        """Compute ``first``, and what else was asked for as far as there is room."""
        waiting = [each for each in (reference() for reference in self._asked) if each is not None]
        batch, canvases = [first], len(first.canvases)
        for each in waiting:
            if each is not first and canvases + len(each.canvases) <= self._most:
                batch.append(each)
                canvases += len(each.canvases)
        self._asked = [weakref.ref(each) for each in waiting if each not in batch]
        logits = self._model.denoise_apart(
            torch.cat([each.canvases for each in batch]),
            [each.cache for each in batch for _ in each.canvases],
            torch.cat([each.softs for each in batch]),
        )
        self.passes += 1
        for each, own in zip(batch, logits.split([len(each.canvases) for each in batch]), strict=True):
            each.logits = own


class _Pass:
    """A pass that was asked for. canvases: int64 [B, C]; softs: [B, C, hidden]; logits: once it is computed."""

    def __init__(self, sharing: Sharing, cache: KVCache, canvases: Tensor, softs: Tensor) -> None:
        self._sharing = sharing
        self.cache = cache
        self.canvases = canvases
        self.softs = softs
        self.logits: Tensor | None = None

    def __call__(self) -> Tensor:
        if self.logits is None:
            self._sharing.run(self)
        assert self.logits is not None
        logits, self.logits = self.logits, None
        return logits
