"""One prompt, one answer: load, write, show, keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dgemma_cli.commands.before_loading import Length, work_of
from dgemma_cli.commands.demonstration import introduce
from dgemma_cli.commands.where import Where
from dgemma_cli.commands.writers import Choice, find
from dgemma_cli.engine.options import Options
from dgemma_cli.fit import Fit
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.terminal.color_by import ColorBy
from dgemma_cli.terminal.entries import Start
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.live import LiveView
from dgemma_cli.terminal.markdown import print_markdown
from dgemma_cli.terminal.output import AnswerSink, JsonLinesSink, JsonSink, Sink, Target
from dgemma_cli.terminal.painter import Painter
from dgemma_cli.terminal.palette import Palette
from dgemma_cli.terminal.summary import Summary, statistics, warnings
from dgemma_cli.writing import Writer

if TYPE_CHECKING:
    from dgemma_cli.model.config import ModelConfig
    from dgemma_cli.prompting.prompter import Prompter


@dataclass(frozen=True, slots=True)
class Request:
    """What a run was asked for, checked for contradictions. writer: who is to write, where that is settled already;
    slow: seconds to hold each step.
    """

    prompt: str
    system: str | None
    model: str
    device: str
    dtype: str
    where: Where
    writer: Writer | None
    fit: Fit
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

        def say(*lines: str) -> None:
            _tell(lines, environment, view)

        writer = request.writer or find(
            Choice(
                request.model,
                request.device,
                request.dtype,
                request.fit,
                request.where.warm,
                request.where.keep,
                work_of(request.options),
                partial(_length, request, messages),
            ),
            environment,
            _progress(request, view),
            warn=lambda text: None if request.quiet else say(text),
            explain=lambda text: say(text) if request.verbose else None,
        )
        if request.verbose:
            say(*writer.described(request.options))
        entries = writer.write(messages, request.thinking, request.options, request.slow)
        start = Start(
            writer.name, writer.device, writer.dtype, request.prompt, request.system, request.slow, writer.fit
        )
        for entry in chain([start], entries):
            for sink in sinks:
                sink.show(entry)
    _sum_up(request, environment, summary, view)


def _length(request: Request, messages: Sequence[Message], prompter: Prompter, config: ModelConfig) -> Length:
    """Of the prompt and the longest answer. Raises UsageError where the prompt leaves no room for any."""
    prompt = len(prompter.encode(messages, request.thinking))
    config.check_prompt(prompt)
    canvases = -(-request.options.max_tokens // config.canvas_length)
    return Length(prompt, canvases * config.canvas_length)


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


def _tell(lines: Sequence[str], environment: Environment, view: LiveView | None) -> None:
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
