"""A checkpoint, or random weights, in memory to be measured by ``dgemma bench``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dgemma_cli import memory
from dgemma_cli.bench.prompts import Encode
from dgemma_cli.bench.shapes import scheme_of
from dgemma_cli.commands import loading
from dgemma_cli.commands.bench import RANDOM_CONTEXT
from dgemma_cli.commands.bench_request import Request, Subject
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import OutOfMemory
from dgemma_cli.units import size

if TYPE_CHECKING:
    from dgemma_cli.device import Choice
    from dgemma_cli.engine.events import Event
    from dgemma_cli.model.model import Model


@dataclass(frozen=True, slots=True)
class Loaded:
    """A subject in memory. encode, read: its language; None for random weights, which have none."""

    subject: Subject
    choice: Choice
    model: Model
    write: Callable[[Sequence[int], Options], Iterator[Event]]
    encode: Encode | None
    read: Callable[[Sequence[int]], str] | None
    weights: int
    seconds: float


def load(request: Request, subject: Subject, notes: list[str]) -> Loaded:
    """notes: what is to be told of it is added. Raises DgemmaError."""
    return _random(request, subject, notes) if subject.location is None else _stored(request, subject, notes)


def _stored(request: Request, subject: Subject, notes: list[str]) -> Loaded:
    from dgemma_cli.engine import probe

    begun = time.perf_counter()
    session = loading.load_session(subject.name, request.device, request.dtype, None, request.fit, notes.append)
    seconds = time.perf_counter() - begun
    if session.choice.fit == "as stored":  # told exactly by the files, also where weights were laid out anew
        assert subject.location is not None
        weights = memory.of_folder(subject.location.folder, session.choice.dtype).weights
    else:
        weights = sum(probe.weigh(session.model))
        if "host's memory" in session.choice.fit:
            notes.append("the floor is too low: it leaves out the way of experts from the host's memory to the device")
    return Loaded(
        subject,
        session.choice,
        session.model,
        session.generate,
        lambda messages: session.encode(messages, thinking=False),
        lambda ids: session.prompter.reply(ids).answer,
        weights,
        seconds,
    )


def _random(request: Request, subject: Subject, notes: list[str]) -> Loaded:
    """Raises OutOfMemory where the weights would not fit."""
    from dgemma_cli.device import choose_for
    from dgemma_cli.engine import probe
    from dgemma_cli.engine.generate import generate
    from dgemma_cli.engine.trust import proven
    from dgemma_cli.weights.loader import DTYPES
    from dgemma_cli.weights.random import random_model

    scheme = scheme_of(subject.form)
    choice = choose_for(request.device, request.dtype, memory.of_scheme(subject.config, scheme).weights)
    on_gpu = choice.device != "cpu"
    footprint = memory.of_scheme(subject.config, scheme, choice.dtype)
    context = max(request.contexts or (RANDOM_CONTEXT,)) + request.reply_tokens(subject.config)
    needed = footprint.needs(context, "cuda" if on_gpu else "cpu").total
    free = probe.free_memory(choice.device)
    if needed > free:
        raise OutOfMemory(
            f"{subject.name} ({subject.form}) needs {size(needed)}, {size(free)} are free on {choice.device}.",
            "Take a smaller size or another of --formats.",
        )
    begun = time.perf_counter()
    model = random_model(subject.config, scheme, choice.device, DTYPES[choice.dtype])
    seconds = time.perf_counter() - begun
    model = proven(model, notes.append)
    return Loaded(subject, choice, model, partial(generate, model), None, None, footprint.weights, seconds)
