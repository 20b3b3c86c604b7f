"""The steps of a canvas as recorded programs: the device decides by itself, and the host only looks on.

Everything that differs between steps, blocks and settings is a number in the device's memory: which step it is, the
temperatures, the random numbers of the whole block, the sampler's rules. So one recording serves them all. A step is
two programs: ``look`` ends with the decision to stop, which is copied to the host while ``soften`` prepares the next
step's self-conditioning; by the time that is done the host has launched the next step, or knows that there is none.

The canvases are those of the plain loop, token by token, for the same seed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import cast

import torch
from torch import Tensor

from dgemma_cli.engine.denoise import Canvas, Task
from dgemma_cli.engine.events import Denoised
from dgemma_cli.kernels.operations import Sampled
from dgemma_cli.kernels.placing import on
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.programs import Executor, Run
from dgemma_cli.model.static_cache import Buffers, StaticCache
from dgemma_cli.sampling.draws import SeededDraws, pick_by_inverse_cdf
from dgemma_cli.sampling.rules import SETTINGS, Rules, settings
from dgemma_cli.sampling.statistics import predict

# Steps launched before it is known whether they are wanted. With 1 the device never waits for the host, and a canvas
# that stops by itself takes a step for nothing; with 0 the device waits if the host needs longer than ``soften``.
AHEAD = 0
_STEPS = 48  # room for the steps of a canvas, at the least


def graphed(task: Task, ahead: int = AHEAD) -> Generator[Denoised, None, Canvas]:
    """``denoise.Denoiser`` for a FusedModel, one canvas on SeededDraws, and no held text."""
    model, cache, (draws,) = task.model, task.cache, task.draws
    assert isinstance(model, FusedModel) and isinstance(cache, StaticCache) and isinstance(draws, SeededDraws)
    board = board_of(model, cache.buffers, task.sampler.steps)
    board.begin(task, draws)
    board.launch(1 + ahead)
    for step in range(1, task.sampler.steps + 1):
        stop = board.stops(step)
        last = stop or step == task.sampler.steps
        if not last:
            board.launch(step + 1 + ahead)  # before the event, which somebody may look at for long
        if task.report:
            yield board.event(task.block, step)
        if last:
            draws.skip(step)
            return Canvas(*board.drafts(step), step, stop)
    raise AssertionError("a canvas takes at least one step")


def board_of(model: FusedModel, buffers: Buffers, steps: int) -> Board:
    """The board of these buffers, recorded if there is none yet for so many steps."""
    board = cast("Board | None", buffers.programs.get("denoise"))
    if board is None or board.steps < steps:
        board = Board(model, buffers, max(steps, _STEPS))
        buffers.programs["denoise"] = board
    return board


def sample(model: FusedModel, hidden: Tensor, temperature: Tensor, uniform: Tensor) -> Sampled:
    """What a step needs to know of the logits. hidden: [C, hidden]; temperature: float32 [1]; uniform: float32 [C]."""
    if model.operations.sample is not None:
        with on(model.device):
            return model.operations.sample(model.scores(hidden), model.config.logit_softcap, temperature, uniform)
    probabilities, entropy, draft = predict(model.head(hidden), temperature)
    return Sampled(draft, entropy, pick_by_inverse_cdf(probabilities, uniform[:, None]), probabilities)


class _Both:
    """A tensor on the device and one on the host, to copy between without waiting."""

    def __init__(self, executor: Executor, device: torch.device, dtype: torch.dtype, *shape: int) -> None:
        self.host = executor.host(shape, dtype)
        self.device = torch.zeros(shape, dtype=dtype, device=device)

    def send(self) -> None:
        self.device.copy_(self.host, non_blocking=True)

    def row(self, index: int) -> tuple[Tensor, Tensor]:
        """On the device, on the host."""
        return self.device[index], self.host[index]


class Board:
    """The buffers and programs of a canvas's steps over one cache's buffers. C positions, V ids; steps: at the most.

    look: a step, up to the decision to stop and the next canvas; soften: the self-conditioning for the next step.
    """

    def __init__(self, model: FusedModel, buffers: Buffers, steps: int) -> None:
        self.steps = steps
        self._model, self._buffers = model, buffers
        device, canvas = model.device, model.config.canvas_length

        def both(dtype: torch.dtype, *shape: int) -> _Both:
            return _Both(model.executor, device, dtype, *shape)

        # What the device is told of a block.
        self._noise = both(torch.int64, steps + 1, canvas)
        self._uniform = both(torch.float32, steps, canvas)
        self._temperatures = both(torch.float32, steps)
        self._settings = both(torch.int64, SETTINGS)
        # What it tells of each step: in a row of its own, so that nothing is overwritten before it is read.
        self._drafts = both(torch.int64, steps, canvas)
        self._entropies = both(torch.float32, steps, canvas)
        self._accepted = both(torch.bool, steps, canvas)
        self._stops = both(torch.bool, steps)
        # What goes from step to step.
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._canvas = torch.zeros(canvas, dtype=torch.int64, device=device)
        self._soft = torch.zeros(canvas, model.config.hidden_size, dtype=model.dtype, device=device)
        self._rules = Rules(self._settings.device, canvas, sorted(model.defaults.eos_ids))
        self._probabilities = self._soft
        self._temperatures.device.fill_(1.0)  # recording runs a step or two
        self.look = model.executor.record(self._look_once)
        self.soften = model.executor.record(self._soften_once)
        # What the host knows of the canvas under way.
        self._most = self._launched = 0
        self._report = self._under_way = False
        self._waits: list[Run] = []

    @property
    def nbytes(self) -> int:
        """See ``static_cache.Recorded``. Nearly all of it are the probabilities, [C, V]."""
        told = (self._noise, self._uniform, self._drafts, self._entropies, self._accepted)
        return self._probabilities.nbytes + self._soft.nbytes + sum(each.device.nbytes for each in told)

    def begin(self, task: Task, draws: SeededDraws) -> None:
        """A new canvas."""
        if self._under_way:  # the last one was left midway: what is told may still be on its way from this memory
            self._model.executor.fetch([])()
        self._under_way = True
        sampler = task.sampler
        self._most, self._launched, self._report, self._waits = sampler.steps, 0, task.report, []
        draws.ahead(self._noise.host[: self._most + 1], self._uniform.host[: self._most])
        temperatures = [sampler.schedule.temperature(step) for step in range(1, self._most + 1)]
        self._temperatures.host[: self._most] = torch.tensor(temperatures)
        rules = settings(sampler.acceptance, sampler.stopping, task.room, len(self._canvas))
        self._settings.host[:] = torch.tensor(rules)
        for told in (self._noise, self._uniform, self._temperatures, self._settings):
            told.send()
        self._rules.begin()
        self._step.zero_()
        self._soft.zero_()
        self._canvas.copy_(self._noise.device[0])

    def launch(self, steps: int) -> None:
        """Have so many steps launched, within the cap."""
        for step in range(self._launched, min(steps, self._most)):
            self.look()
            told = [self._stops]
            if self._report:
                told += [self._drafts, self._entropies, self._accepted]
            self._waits.append(self._model.executor.fetch([each.row(step) for each in told]))
            if step + 1 < self._most:
                self.soften()
            self._launched = step + 1

    def stops(self, step: int) -> bool:
        """Whether the rule stops the canvas after this step; waits for it."""
        self._waits[step - 1]()
        return bool(self._stops.host[step - 1])

    def event(self, block: int, step: int) -> Denoised:
        """What is to be told of a step."""
        drafts = self._drafts.host
        changed = drafts[step - 1] != drafts[step - 2] if step > 1 else torch.ones(drafts.shape[1], dtype=torch.bool)
        return Denoised(
            block=block,
            step=step,
            canvas=tuple(drafts[step - 1].tolist()),
            accepted=tuple(self._accepted.host[step - 1].tolist()),
            entropy=tuple(self._entropies.host[step - 1].tolist()),
            changed=tuple(changed.tolist()),
        )

    def drafts(self, step: int) -> tuple[Tensor, Tensor | None]:
        """The draft of a step and the one before it, on the host."""
        first = max(0, step - 2)
        self._model.executor.fetch([(self._drafts.device[first:step], self._drafts.host[first:step])], behind=False)()
        self._under_way = False
        found = self._drafts.host[first:step].clone()
        return found[-1], found[0] if step > 1 else None

    def _look_once(self) -> None:
        model, step = self._model, self._step
        hidden = model.decode(self._canvas, self._soft, self._buffers)
        uniform = self._uniform.device.index_select(0, step)[0]
        temperature = self._temperatures.device.index_select(0, step)
        sampled = sample(model, hidden, temperature, uniform)
        accepted, stop = self._decide(sampled, self._noise.device.index_select(0, step + 1)[0])
        self._probabilities = sampled.probabilities  # kept, so that its memory is not given to the next recording
        rows = (
            (self._stops, stop),
            (self._drafts, sampled.draft),
            (self._entropies, sampled.entropy),
            (self._accepted, accepted),
        )
        for told, row in rows:
            told.device.index_copy_(0, step, row.view(1, *told.device.shape[1:]))
        step.add_(1)

    def _decide(self, sampled: Sampled, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What is accepted and whether to stop; writes the next canvas."""
        rules, advance = self._rules, self._model.operations.advance
        draft, entropy, picked, _ = sampled
        if advance is not None:
            state = rules.numbers, rules.eos, rules.previous, rules.unchanged
            with on(self._model.device):
                return advance(*state, draft, entropy, picked, noise, self._canvas)
        accepted = rules.accept(entropy)
        self._canvas.copy_(torch.where(accepted, picked, noise))
        return accepted, rules.stop(draft, entropy)

    def _soften_once(self) -> None:
        self._soft.copy_(self._model.expected_embedding(self._probabilities))
