"""One run of ``dgemma bench``: load, measure, write the report."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from dgemma_cli.bench import compare, figures, report
from dgemma_cli.bench.conditions import Conditions
from dgemma_cli.bench.floor import Device, Resident
from dgemma_cli.bench.local import LocalTarget
from dgemma_cli.bench.prompts import Collection, Prompt, fill
from dgemma_cli.bench.quality import judge
from dgemma_cli.bench.runner import SEED, Case, Plan, rounds
from dgemma_cli.bench.tasks import Task
from dgemma_cli.commands.bench import BUDGET, RANDOM_CONTEXT, REPETITIONS, Form
from dgemma_cli.commands.bench_loading import Loaded, load
from dgemma_cli.commands.bench_request import Request, Subject, collection_of, subjects_of, tasks_of
from dgemma_cli.errors import UsageError
from dgemma_cli.machine import look
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.output import Target as Destination


def perform(request: Request, environment: Environment) -> None:
    """Measure and write the report. Raises DgemmaError, for wrong files and impossible wishes before anything runs."""
    old = compare.read(request.compare) if request.compare is not None else None
    subjects = list(subjects_of(request))
    collection = collection_of(request, subjects)
    tasks = tasks_of(request, subjects)
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
    loaded = load(request, subject, document["notes"])
    model, config = loaded.model, subject.config
    conditions.choose(loaded.choice.device)
    peak = probe.Peak(model.device)

    encode = loaded.encode or (lambda _messages: ())
    target = LocalTarget(loaded.write, encode, partial(probe.wait, model.device), peak.read)
    cases = [
        Case(target.prepare(prompt), preset, request.reply_tokens(config), request.steps)
        for preset in (request.presets if request.steps is None else (None,))
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
            judged.append(judge(target, tasks, preset, request.reply_tokens(config), loaded.read))
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
