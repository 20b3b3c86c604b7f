"""Measures in which tiles the kernels of a model are fastest on its card.

Each use of a kernel is launched as a denoising step launches it: on the model's own weights, layer after layer, so that
no cache of the card holds them; with as many experts in use as text has; in a CUDA graph, by marks in the card's queue.
What a tile computes is first held against what the usual one does, which was compared with torch when the model was
loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dgemma_cli.engine.stopwatch import milliseconds
from dgemma_cli.engine.trouble import recover, words
from dgemma_cli.errors import UsageError
from dgemma_cli.kernels.cuts import Cut, trying
from dgemma_cli.kernels.operations import Matrices
from dgemma_cli.kernels.placing import on
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.kernel_uses import Attention, Use, uses_of
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls, Graphs

# Both add the same products up in float32, in another order, and round to bfloat16: by 2^-9 of a value at the most;
# attention rounds its weights as well. What is computed wrongly is off by about its own size.
LIMIT = 2**-6
CONTEXT = 4096  # tokens that a layer without a window looks back at
_IN_USE = 84 / 128  # of the experts, by the tokens of a canvas of text
_LAUNCHES = 12  # in a recording: on more bytes than a card's cache holds
_ROUNDS = 20
_WORTH = 0.02  # less is noise, and the usual tile stays

Launch = Callable[[int], Tensor]


@dataclass(frozen=True, slots=True)
class Measured:
    """Of a use. microseconds: of a launch, by cut, the usual one first; dropped: why the others were not measured."""

    use: Use
    microseconds: dict[Cut, float]
    dropped: dict[Cut, str] = field(default_factory=dict)

    @property
    def usual(self) -> Cut:
        return self.use.cuts[0]

    @property
    def chosen(self) -> Cut:
        """The fastest, if it is worth anything."""
        best = min(self.microseconds, key=self.microseconds.__getitem__)
        return best if self.microseconds[best] < (1 - _WORTH) * self.before else self.usual

    @property
    def before(self) -> float:
        return self.microseconds[self.usual]

    @property
    def after(self) -> float:
        return self.microseconds[self.chosen]


@torch.no_grad()
def tune(model: Model, begin: Callable[[Use], None] | None = None) -> Iterator[Measured]:
    """Measure each use of ``model``. begin: is told which one comes.

    Raises UsageError if the model is on no kernels that work in tiles, NoDevice if the card does not recover from one,
    torch.OutOfMemoryError where there is no memory left.
    """
    uses = uses_of(model) if isinstance(model, FusedModel) else []
    if not isinstance(model, FusedModel) or not uses:
        raise UsageError(f"There are no tiles to measure: {model.kernels}.")
    for use in uses:
        if begin is not None:
            begin(use)
        with on(model.device):
            found = _measured(model, use)
        yield found
        if model.device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(model: FusedModel, use: Use) -> Measured:
    usual, *others = use.cuts
    launches, launch = _launched(model, use)

    def all_of_them(cut: Cut) -> None:
        with trying(use.name, cut):
            for index in range(launches):
                launch(index)

    executor = Graphs(model.device) if isinstance(model.executor, Graphs) else Calls()
    with trying(use.name, usual):
        expected = launch(0).clone()
    runs = {usual: executor.record(partial(all_of_them, usual))}
    dropped: dict[Cut, str] = {}
    for cut in others:
        try:
            with trying(use.name, cut):
                trouble = _differs(launch, expected)
            if trouble is None:
                runs[cut] = executor.record(partial(all_of_them, cut))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler, a driver: whatever each of them may raise
            trouble = words(error)
            recover(model.device, f"{use.name} in tiles of {cut}: {trouble}")
        if trouble is not None:
            dropped[cut] = trouble
    times = milliseconds(model.device, list(runs.values()), _ROUNDS)
    return Measured(use, {cut: time * 1000 / launches for cut, time in zip(runs, times, strict=True)}, dropped)


def _differs(launch: Launch, expected: Tensor) -> str | None:
    """Why what is launched is not what the usual tile computes, if so."""
    launch(0).fill_(torch.nan)  # where the next launch writes
    found, expected = (rows.flatten(1).float() for rows in (launch(0), expected))
    distance = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    if not bool(distance.isfinite().all()):
        return "not all that is to be written is written, or is a number"
    worst = float(distance.max())
    return None if worst < LIMIT else f"differs from the usual tile by {worst:.1%}"


def _launched(model: FusedModel, use: Use) -> tuple[int, Launch]:
    """How many launches to measure, and what makes them; each writes to the same place."""
    if use.kernel == "attention":
        return _LAUNCHES, _attention(model, cast(Attention, use.operands[0]))
    every = -(-use.launches // _LAUNCHES)
    matrices = cast(tuple[Matrices, ...], use.operands)[::every]
    if use.kernel in ("dense", "gated"):
        return len(matrices), _dense(model, use, matrices)
    return len(matrices), _routed(model, use, matrices)


def _random(model: FusedModel) -> Callable[..., Tensor]:
    """Normal numbers of the model's dtype, on its device, the same in every run."""
    generator = torch.Generator(model.device).manual_seed(0)
    return lambda *shape: torch.randn(shape, device=model.device, generator=generator).to(model.dtype)


def _dense(model: FusedModel, use: Use, matrices: tuple[Matrices, ...]) -> Launch:
    from dgemma_cli.kernels.dense import packed_gated, packed_linear
    from dgemma_cli.kernels.planes import rows_in, to_planes
    from dgemma_cli.kernels.words import words_of

    of_words = words_of(matrices[0])
    x = to_planes(_random(model)(model.config.canvas_length, of_words.columns), of_words.planes)
    if use.kernel == "gated":
        out = rows_in(of_words.planes, len(x), of_words.rows // 2, x)
        return lambda index: packed_gated(x, matrices[index], of_words.planes, out=out)
    out = x.new_empty(len(x), of_words.rows)
    return lambda index: packed_linear(x, matrices[index], out=out)


def _routed(model: FusedModel, use: Use, matrices: tuple[Matrices, ...]) -> Launch:
    from dgemma_cli.kernels.grouped import grouped_down, grouped_gate_up
    from dgemma_cli.kernels.grouping import group_by_expert
    from dgemma_cli.kernels.planes import rows_in, to_planes
    from dgemma_cli.kernels.words import words_of

    config, of_words, random = model.config, words_of(matrices[0]), _random(model)
    scores = random(config.canvas_length, config.num_experts).float()
    scores[:, max(config.top_k_experts, round(config.num_experts * _IN_USE)) :] -= 100
    chosen, experts = scores.topk(config.top_k_experts)
    groups, weights = group_by_expert(experts, config.num_experts), chosen.softmax(dim=-1)
    tokens = len(scores) if use.kernel == "gate_up" else experts.numel()
    x = to_planes(random(tokens, of_words.columns), of_words.planes)
    if use.kernel == "gate_up":
        out = rows_in(of_words.planes, experts.numel(), of_words.rows // 2, x)
        return lambda index: grouped_gate_up(x, matrices[index], groups, of_words.planes, out=out)
    out = x.new_empty(experts.numel(), of_words.rows)
    return lambda index: grouped_down(x, matrices[index], groups, weights, out=out)


def _attention(model: FusedModel, wanted: Attention) -> Launch:
    from dgemma_cli.kernels.attention import attend_canvas
    from dgemma_cli.kernels.planes import rows_in

    config, random, layer = model.config, _random(model), wanted.shape
    canvas, dim = config.canvas_length, layer.head_dim
    kept = config.sliding_window - 1 if layer.sliding else min(CONTEXT, config.max_context - canvas)
    q = random(canvas, layer.num_heads, dim) * dim**-0.25  # there is no 1/sqrt(d)
    keys = [random(layer.num_kv_heads, kept + canvas, dim) for _ in range(_LAUNCHES)]
    values = [random(layer.num_kv_heads, kept + canvas, dim) for _ in range(_LAUNCHES)]
    first, start = (torch.tensor([number], dtype=torch.int32, device=model.device) for number in (0, kept))
    out = rows_in(wanted.planes, canvas, layer.num_heads * dim, q)
    return lambda index: attend_canvas(q, keys[index], values[index], first, start, wanted.planes, out)
