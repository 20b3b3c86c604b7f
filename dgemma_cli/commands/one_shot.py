"""One prompt, one answer: load, write, show, keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from dgemma_cli.commands import loading
from dgemma_cli.commands.demonstration import introduce
from dgemma_cli.engine.events import Denoised, Event, Finished
from dgemma_cli.engine.options import Options
from dgemma_cli.prompting.prompter import Message
from dgemma_cli.terminal.entries import Start
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.live import LiveView
from dgemma_cli.terminal.markdown import print_markdown
from dgemma_cli.terminal.narrator import Narrator
from dgemma_cli.terminal.output import AnswerSink, JsonLinesSink, JsonSink, Sink, Target
from dgemma_cli.terminal.painter import Painter
from dgemma_cli.terminal.palette import ColorBy, Palette
from dgemma_cli.terminal.summary import Summary, statistics, warnings


@dataclass(frozen=True, slots=True)
class Request:
    """What a run was asked for, checked for contradictions. slow: seconds to hold each step."""

    prompt: str
    system: str | None
    model: str
    device: str
    dtype: str
    thinking: bool
    options: Options
    format: Literal["text", "json", "jsonl"]
    output: Path | None
    record: Path | None
    live: bool
    show_thinking: bool
    markdown: bool
    stats: bool
    color: bool
    color_by: ColorBy
    slow: float
    quiet: bool
    verbose: bool


def perform(request: Request, environment: Environment) -> None:
    """Write the answer to ``request``. Raises DgemmaError; whatever happens, the terminal is left clean and the
    committed text is written.
    """
    messages = [Message("system", request.system)] if request.system else []
    messages.append(Message("user", request.prompt))
    summary = Summary()
    with ExitStack() as stack:
        view = _view(request, environment) if request.live else None
        sinks: list[Sink] = [summary]
        for sink in _sinks(request, environment, view):
            stack.callback(sink.close)
            sinks.append(sink)
        if view is not None:
            sinks.insert(0, view)  # so that it knows of committed text before a sink takes it out
            stack.callback(view.close)
            view.start(f"loading {request.model}")

        session = loading.load_session(request.model, request.device, request.dtype, _progress(request, view))
        if request.verbose:
            _tell_choice(session, environment, view)
        ids = session.encode(messages, request.thinking)
        narrator = Narrator(session.language(ids))
        choice = session.choice
        start = Start(session.name, choice.device, choice.dtype, request.prompt, request.system, request.slow)
        for sink in sinks:
            sink.show(start)
        for event in paced(session.generate(ids, request.options), request.slow):
            entry = narrator.tell(event)
            for sink in sinks:
                sink.show(entry)
    _sum_up(request, environment, summary, view)


def paced(events: Iterator[Event], pause: float) -> Iterator[Event]:
    """``events``, each step held for ``pause`` seconds, which are taken out of the statistics again."""
    paused = paused_first = 0.0
    for event in events:
        if isinstance(event, Finished) and paused:
            figures = event.statistics
            event = replace(
                event,
                statistics=replace(
                    figures,
                    seconds=figures.seconds - paused,
                    first_block_seconds=figures.first_block_seconds - paused_first,
                ),
            )
        yield event
        if pause and isinstance(event, Denoised):
            begun = time.perf_counter()
            time.sleep(pause)
            paused += time.perf_counter() - begun
            if event.block == 0:
                paused_first = paused


def _view(request: Request, environment: Environment) -> LiveView:
    palette = Palette(request.color, environment.unicode, request.color_by)
    painter = Painter.on_terminal(environment.stderr.fileno(), environment.encode_for_terminal)
    return LiveView(painter, palette, request.show_thinking)


def _sinks(request: Request, environment: Environment, view: LiveView | None) -> Iterator[Sink]:
    """The outputs asked for. Their files are opened here, before any work."""
    target = Target(environment, request.output)
    if request.format == "json":
        yield JsonSink(target)
    elif request.format == "jsonl":
        yield JsonLinesSink(target)
    else:
        render = partial(print_markdown, environment, request.color) if request.markdown else None
        thinking = environment.whisper if request.show_thinking else None
        yield AnswerSink(target, view, render, thinking)
    if request.record is not None:
        yield JsonLinesSink(Target(environment, request.record))


def _progress(request: Request, view: LiveView | None) -> Callable[[int, int], None] | None:
    """Shows how far loading is."""
    if view is None:
        return None
    return lambda done, total: view.tell(f"loading {request.model} {done / max(1, total):.0%}")


def _tell_choice(session: loading.Session, environment: Environment, view: LiveView | None) -> None:
    lines = [
        f"model   {session.name} ({session.folder})",
        f"device  {session.choice.device} ({session.choice.why_device})",
        f"dtype   {session.choice.dtype} ({session.choice.why_dtype})",
    ]
    if session.model.skipped:
        lines.append(f"skipped {session.model.skipped} vision tensors: dgemma reads text only")

    def write() -> None:
        for line in lines:
            environment.say(line, dim=True)

    if view is not None:
        view.print_above(write)
    else:
        write()


def _sum_up(request: Request, environment: Environment, summary: Summary, view: LiveView | None) -> None:
    """What is to be said after the answer, on standard error."""
    if view is not None and view.failure is not None and not request.quiet:
        environment.say(f"the live view failed ({view.failure}); the answer is complete", dim=True)
    if summary.finish is None:
        return
    if not request.quiet:
        for warning in warnings(summary.finish, summary.commits):
            environment.say(f"warning: {warning}", dim=True)
    if not request.quiet:
        introduce(request.model, environment)
    if request.stats:
        environment.say(statistics(summary.finish, summary.first_draft_seconds), dim=True)
