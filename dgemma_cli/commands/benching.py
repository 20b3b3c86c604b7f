"""One run of ``dgemma bench``: load, measure, write the report."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgemma_cli import memory
from dgemma_cli.bench import compare, figures, report
from dgemma_cli.bench.choices import Size
from dgemma_cli.bench.conditions import Conditions
from dgemma_cli.bench.floor import Device, Resident
from dgemma_cli.bench.local import LocalTarget
from dgemma_cli.bench.prompts import Collection, Encode, Prompt, fill, general, nano, read_prompt_file
from dgemma_cli.bench.quality import judge
from dgemma_cli.bench.runner import SEED, Case, Plan, rounds
from dgemma_cli.bench.shapes import config_of, default_format, scheme_of
from dgemma_cli.bench.tasks import Task, nano_tasks, read_tasks
from dgemma_cli.catalog.inventory import format_of
from dgemma_cli.catalog.known import DEFAULT
from dgemma_cli.catalog.names import NANO_FOLDER
from dgemma_cli.catalog.resolve import Location, resolve
from dgemma_cli.commands import loading
from dgemma_cli.commands.bench import BUDGET, MAX_TOKENS, RANDOM_CONTEXT, RANDOM_STEPS, REPETITIONS, Form
from dgemma_cli.commands.units import size
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import OutOfMemory, UsageError
from dgemma_cli.fit import Fit
from dgemma_cli.machine import look
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.output import Target as Destination

if TYPE_CHECKING:
    from dgemma_cli.device import Choice
    from dgemma_cli.engine.events import Event
    from dgemma_cli.model.model import Model


@dataclass(frozen=True, slots=True)
class Request:
    """What a run was asked for, checked for contradictions."""

    model: str
    random_weights: Size | None
    formats: tuple[str, ...]
    presets: tuple[str, ...]
    contexts: tuple[int, ...]
    prompts: tuple[Path, ...]
    max_tokens: int | None
    fixed_steps: int | None
    repetitions: int | None
    warmup: int
    quality: bool
    tasks: Path | None
    profile: bool
    device: str
    dtype: str
    fit: Fit
    form: Form
    output: Path | None
    compare: Path | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint to be measured, before it is loaded. location: None for random weights."""

    name: str
    form: str
    config: ModelConfig
    location: Location | None


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


def perform(request: Request, environment: Environment) -> None:
    """Measure and write the report. Raises DgemmaError, for wrong files and impossible wishes before anything runs."""
    old = compare.read(request.compare) if request.compare is not None else None
    subjects = list(_subjects(request))
    collection = _collection(request, subjects)
    tasks = _tasks(request, subjects)
    conditions = Conditions.now(look())
    with ExitStack() as stack:
        destination = Destination(environment, request.output)
        stack.callback(destination.close)
        document = _document(request, conditions)
        for subject in subjects:
            _measure(request, subject, collection, tasks, conditions, document, _teller(environment, subject))
            gc.collect()  # so that two models are never in memory at once
        document["environment"] = conditions.as_dict()
        incomparable = None
        if old is not None:
            try:
                document["comparison"] = compare.compare(old, document)
            except UsageError as error:
                incomparable = error  # told when what was measured is safe
        unwarned = request.form is Form.MD and request.output is None  # the report says it itself
        for warning in [] if unwarned else document["notes"]:
            environment.say(f"warning: {warning}", dim=True)
        destination.write(_WRITERS[request.form](document, environment.unicode))
        if incomparable is not None:
            raise incomparable


_WRITERS: dict[Form, Callable[[dict[str, Any], bool], str]] = {
    Form.MD: report.as_markdown,
    Form.CSV: lambda document, _: report.as_csv(document),
    Form.JSON: lambda document, _: report.as_json(document),
    Form.JSONL: lambda document, _: report.as_json_lines(document),
}


def _subjects(request: Request) -> Iterator[Subject]:
    """What is to be measured. Raises ModelUnavailable, CheckpointError or UsageError before anything is loaded."""
    found = list(_random_subjects(request) if request.random_weights else _real_subjects(request))
    for subject in found:
        config = subject.config
        for context in request.contexts:
            if context + config.canvas_length > config.max_context:
                raise UsageError(
                    f"A context of {context:,} tokens and a canvas of {config.canvas_length} are more than the "
                    f"{config.max_context:,} that {subject.name} has."
                )
        yield subject


def _random_subjects(request: Request) -> Iterator[Subject]:
    assert request.random_weights is not None
    config = config_of(request.random_weights)
    for form in request.formats or (default_format(request.random_weights),):
        yield Subject(f"random {request.random_weights}", form, config, None)


def _real_subjects(request: Request) -> Iterator[Subject]:
    names = [f"{DEFAULT}:{form}" for form in request.formats] or [request.model]
    for location in map(resolve, names):
        yield Subject(location.name, format_of(location.folder), ModelConfig.from_folder(location.folder), location)


def _is_nano(subject: Subject) -> bool:
    return subject.location is not None and subject.location.folder == NANO_FOLDER


def _collection(request: Request, subjects: Sequence[Subject]) -> Collection:
    """The prompts, read before anything is loaded."""
    shipped = nano() if _is_nano(subjects[0]) else general()
    if not request.prompts:
        return shipped
    own = tuple(map(read_prompt_file, request.prompts))
    if len({prompt.name for prompt in own}) < len(own):
        raise UsageError("Two files of --prompt have the same name, by which the report tells them apart.")
    if request.contexts and len(own) > 1:
        raise UsageError("--contexts takes one --prompt: the question behind them.")
    return replace(shipped, prompts=own, recall=own[0])


def _tasks(request: Request, subjects: Sequence[Subject]) -> list[Task]:
    if not request.quality:
        return []
    if request.tasks is not None:
        return read_tasks(request.tasks)
    if not _is_nano(subjects[0]):
        raise UsageError(
            f"For {subjects[0].name} no tasks with known answers come along.",
            'Give some: --tasks FILE, a line each: {"prompt": "…", "answer": "…"}',
        )
    return nano_tasks()


def _document(request: Request, conditions: Conditions) -> dict[str, Any]:
    """The report, as far as it is known before anything was measured."""
    notes = []
    if request.random_weights is not None:
        notes.append("the weights are random: only ms a step counts, tokens a second would mean nothing")
    elif request.fixed_steps is not None:
        notes.append(
            f"every block took {request.fixed_steps} steps, asked for or not: tokens a second follow from that"
        )
    return {
        "schema": compare.SCHEMA,
        "schema_version": compare.VERSION,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "flags": list(request.flags),
        "plan": {
            "repetitions": request.repetitions or REPETITIONS,
            "rounds": 0,
            "warmup": request.warmup,
            "budget_seconds": BUDGET if request.repetitions is None else None,
            "seed": SEED,
        },
        "environment": conditions.as_dict(),
        "targets": [],
        "rows": [],
        "comparison": None,
        "notes": notes,
    }


def _measure(
    request: Request,
    subject: Subject,
    collection: Collection,
    tasks: Sequence[Task],
    conditions: Conditions,
    document: dict[str, Any],
    tell: Callable[[str], None],
) -> None:
    """Load a subject, measure it, and put what was found into the document."""
    from dgemma_cli.engine import probe, rates
    from dgemma_cli.engine.profile import profile

    tell("loading")
    loaded = _random(request, subject) if subject.location is None else _load(request, subject, document["notes"])
    model, config = loaded.model, subject.config
    conditions.choose(loaded.choice.device)
    peak = probe.Peak(model.device)

    encode = loaded.encode or (lambda _messages: ())
    target = LocalTarget(loaded.write, encode, partial(probe.wait, model.device), peak.read)
    cases = [
        Case(target.prepare(prompt), preset, _max_tokens(request, config), _steps(request))
        for preset in (request.presets if _steps(request) is None else (None,))
        for prompt in _prompts(request, loaded, collection)
    ]

    tell("measuring what the device can do")
    on_gpu = model.device.type == "cuda"
    rate = partial(rates.bandwidth, model.device) if on_gpu else partial(rates.matmul_rate, model.device, model.dtype)
    rated = rate()
    seen = replace(cases[0].options, max_tokens=config.canvas_length)
    experts = probe.experts_used(model, cases[0].prompt.ids, seen)

    conditions.look()
    asked = document["plan"]
    plan = Plan(asked["repetitions"], asked["warmup"], asked["budget_seconds"])
    found = rounds(target, cases, plan, tell=_all(tell, conditions.look))
    conditions.look()
    rated = max(rated, rate())
    device = Device(
        "memory" if on_gpu else "compute", rated, Resident(*probe.weigh(model)), experts, model.dtype.itemsize
    )
    document["plan"]["rounds"] = len(found)
    names = {"model": subject.name, "format": subject.form}
    rows = figures.rows(cases, found, config, device, text=loaded.encode is not None)
    document["rows"] += [names | row for row in rows]

    judged = []
    if tasks and loaded.read is not None:
        for preset in request.presets:
            tell(f"{len(tasks)} tasks under {preset}")
            judged.append(judge(target, tasks, preset, _max_tokens(request, config), loaded.read))
    looked = None
    if request.profile:
        tell("looking where the time goes")
        profile(model, cases[0].prompt.ids, cases[0].options)  # warms up
        seconds, steps = profile(model, cases[0].prompt.ids, cases[0].options)
        looked = {
            "prompt": cases[0].prompt.name,
            "steps": steps,
            "parts": [{"part": part, "ms": 1000 * each / steps} for part, each in seconds.items()],
        }
    document["targets"].append(
        names
        | {
            "revision": None if subject.location is None else subject.location.revision,
            "random_weights": subject.location is None,
            "device": loaded.choice.device,
            "dtype": loaded.choice.dtype,
            "fit": loaded.choice.fit,
            "rounding": loaded.choice.rounding,
            "threads": probe.threads(),
            "kernels": model.kernels,
            "load_seconds": loaded.seconds,
            "weights_bytes": loaded.weights,
            "canvas_length": config.canvas_length,
            "experts": config.num_experts,
            "experts_used": experts,
            "rate": {"kind": device.kind, "per_second": rated},
            "quality": judged,
            "profile": looked,
        }
    )
    told = list(conditions.warnings(loaded.choice.device))
    if len(found) < asked["repetitions"]:
        told.append(f"the minute was up after {len(found)} of {asked['repetitions']} rounds: see --repetitions")
    if len(found) == 1:
        told.append("one round shows no noise: nothing can be said of a difference")
    document["notes"] += [note for note in told if note not in document["notes"]]


def _load(request: Request, subject: Subject, notes: list[str]) -> Loaded:
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


def _random(request: Request, subject: Subject) -> Loaded:
    """Raises OutOfMemory where the weights would not fit."""
    from dgemma_cli.device import choose_for
    from dgemma_cli.engine import probe
    from dgemma_cli.engine.generate import generate
    from dgemma_cli.weights.loader import DTYPES
    from dgemma_cli.weights.random import random_model

    scheme = scheme_of(subject.form)
    choice = choose_for(request.device, request.dtype, memory.of_scheme(subject.config, scheme).weights)
    on_gpu = choice.device != "cpu"
    footprint = memory.of_scheme(subject.config, scheme, choice.dtype)
    context = max(request.contexts or (RANDOM_CONTEXT,)) + _max_tokens(request, subject.config)
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
    return Loaded(subject, choice, model, partial(generate, model), None, None, footprint.weights, seconds)


def _prompts(request: Request, loaded: Loaded, collection: Collection) -> Iterator[Prompt]:
    if loaded.encode is None:
        # Random weights have no language. Their steps are as many whatever the prompt says.
        draw = random.Random(SEED)
        for context in request.contexts or (RANDOM_CONTEXT,):
            ids = tuple(draw.randrange(loaded.subject.config.vocab_size) for _ in range(context))
            yield Prompt("random ids", "random", ids=ids, context=context)
    elif request.contexts:
        for context in request.contexts:
            yield fill(collection.recall, collection.turns, context, loaded.encode)
    else:
        yield from collection.prompts


def _max_tokens(request: Request, config: ModelConfig) -> int:
    if request.max_tokens is not None:
        return request.max_tokens
    return MAX_TOKENS if request.random_weights is None else 2 * config.canvas_length


def _steps(request: Request) -> int | None:
    if request.fixed_steps is None and request.random_weights is not None:
        return RANDOM_STEPS
    return request.fixed_steps


def _teller(environment: Environment, subject: Subject) -> Callable[[str], None]:
    """Says on a terminal what is going on."""

    def tell(what: str) -> None:
        if environment.stderr_is_terminal:
            environment.say(f"{subject.name} ({subject.form}): {what}", dim=True)

    return tell


def _all(tell: Callable[[str], None], look: Callable[[], None]) -> Callable[[str], None]:
    def both(what: str) -> None:
        look()
        tell(what)

    return both
