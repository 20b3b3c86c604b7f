"""Where the time of a denoising step goes, by the parts of the network and the sampler behind it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn

from dgemma_cli.engine.denoise import denoise
from dgemma_cli.engine.events import BlockCommitted, BlockStarted
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import DgemmaError
from dgemma_cli.model.model import Model

_PARTS = {
    r"stack\.layers\.\d+\.self_attn(\.\w*)?": "attention",
    r"stack\.layers\.\d+\.experts": "experts",
    r"stack\.layers\.\d+\.mlp": "dense MLP",
    r"stack\.layers\.\d+\.router": "router",
    r"stack\.(layers\.\d+\.(\w*layernorm\w*)|norm)": "norms",
    r"self_conditioning": "self-conditioning",
}
_METHODS = {"denoise": "the rest", "head": "head", "expected_embedding": "self-conditioning"}
_OUTSIDE, _SAMPLING = "", "sampling"
PARTS = tuple(dict.fromkeys([*_PARTS.values(), *_METHODS.values(), _SAMPLING]))


def profile(model: Model, ids: Sequence[int], options: Options) -> tuple[dict[str, float], int]:
    """Seconds that each of PARTS took over all denoising steps of one reply, and how many steps these were.

    A part's time is without that of the parts inside it. Encoding the prompt and finished blocks is left out. Looking
    takes time of its own, most where parts are short; on a GPU the parts are told apart by marks in its queue, which
    the host does not wait for. Runs step by step, the plain loop, and without a crew. Raises DgemmaError if the model's
    parts cannot be seen.
    """
    watch = _Watch(model.device)
    steps = 0
    with model.uncrewed(), _watched(model, watch):
        for event in generate(model, ids, options, denoiser=denoise):
            if isinstance(event, BlockStarted):
                watch.enter(_SAMPLING)
            elif isinstance(event, BlockCommitted):
                watch.leave()
                steps += event.steps
    if not watch.saw("attention"):
        raise DgemmaError(f"--profile cannot look inside this model: it runs as one piece ({model.kernels}).")
    return watch.seconds(), steps


class _Watch:
    """A line of marks, each where one part ends and another begins."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._cuda = device, device.type == "cuda"
        self._open = [_OUTSIDE]
        self._marks: list[tuple[str, Any]] = []

    def enter(self, part: str) -> None:
        """``part`` begins, inside the one that is open. Nothing counts outside of denoising."""
        self._open.append(part if part == _SAMPLING or len(self._open) > 1 else _OUTSIDE)
        self._mark()

    def leave(self) -> None:
        """The innermost part ends."""
        self._open.pop()
        self._mark()

    def saw(self, part: str) -> bool:
        return any(part == each for each, _ in self._marks)

    def seconds(self) -> dict[str, float]:
        found = dict.fromkeys(PARTS, 0.0)
        if self._cuda:
            torch.cuda.synchronize(self._device)
        for (part, begun), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            if part != _OUTSIDE:
                found[part] += begun.elapsed_time(ended) / 1000 if self._cuda else ended - begun
        return found

    def _mark(self) -> None:
        if not self._cuda:
            self._marks.append((self._open[-1], time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))  # of another GPU, it would mark another one's queue
        self._marks.append((self._open[-1], event))


@contextmanager
def _watched(model: Model, watch: _Watch) -> Iterator[None]:
    """``model`` with its parts telling ``watch`` when they begin and end."""
    handles = []
    for name, module in model.named_modules():
        part = next((part for pattern, part in _PARTS.items() if re.fullmatch(pattern, name)), None)
        if part is not None:
            handles.append(module.register_forward_pre_hook(_entering(watch, part)))
            handles.append(module.register_forward_hook(lambda *_: watch.leave()))
    for method, part in _METHODS.items():
        setattr(model, method, _timed(getattr(model, method), watch, part))
    try:
        yield
    finally:
        for method in _METHODS:
            delattr(model, method)  # the class's own shows again
        for handle in handles:
            handle.remove()


def _entering(watch: _Watch, part: str) -> Callable[[nn.Module, Any], None]:
    return lambda _module, _inputs: watch.enter(part)


def _timed(method: Callable[..., Any], watch: _Watch, part: str) -> Callable[..., Any]:
    @wraps(method)
    def timed(*arguments: Any) -> Any:
        watch.enter(part)
        try:
            return method(*arguments)
        finally:
            watch.leave()

    return timed
