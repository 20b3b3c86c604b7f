"""One reply of a chat: shown while it is written, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dgemma_cli.terminal.cancel import Cancellation, Cancelled
from dgemma_cli.terminal.entries import Entry, Finish, Prompt, Start
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.live import LiveView
from dgemma_cli.terminal.markdown import rendered
from dgemma_cli.terminal.markdown_flow import MarkdownFlow
from dgemma_cli.terminal.output import AnswerSink, JsonLinesSink, Sink, Target
from dgemma_cli.terminal.painter import Painter
from dgemma_cli.terminal.palette import Palette
from dgemma_cli.terminal.summary import Summary, statistics, warnings
from dgemma_cli.terminal.typed_ahead import typed_ahead


@dataclass(frozen=True, slots=True)
class Display:
    """How replies are shown. live: draw the canvas on standard error; color: colours may be used."""

    environment: Environment
    live: bool
    color: bool
    markdown: bool
    show_thinking: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reply came to. text, thinking: all that was committed; finish: None if it was cancelled."""

    text: str
    thinking: str
    finish: Finish | None
    prompt: Prompt | None
    summary: Summary

    def remarks(self) -> list[str]:
        """What the reader should know, a line each."""
        if self.finish is None:
            return []
        found = warnings(self.finish, self.summary.commits)
        return [line.replace("--", "/set ") for line in found]

    def figures(self) -> str:
        """One line about the speed; empty if the reply was cancelled."""
        if self.finish is None or self.prompt is None:
            return ""
        new = self.prompt.tokens - self.prompt.cached
        return f"{new:,} of {self.prompt.tokens:,} prompt tokens encoded, " + statistics(
            self.finish, self.summary.first_draft_seconds
        )


def show(
    entries: Iterator[Entry],
    start: Start,
    display: Display,
    cancellation: Cancellation,
    record: Path | None,
) -> Outcome:
    """Show a reply as it is written. Ctrl-C cancels it (``Outcome.finish`` is None); what was committed stays.

    Whatever happens, the terminal is left clean. record: a file for every step.
    """
    summary = Summary()
    prompt: Prompt | None = None
    with ExitStack() as stack:
        if display.environment.stdin_is_terminal:
            stack.enter_context(typed_ahead(display.environment.stdin.fileno()))
        view = _view(display) if display.live else None
        sinks: list[Sink] = [summary]
        for sink in _sinks(display, view, record):
            stack.callback(sink.close)
            sinks.append(sink)
        if view is not None:
            sinks.insert(0, view)
            stack.callback(view.close)
            view.start("reading the prompt")
        for sink in sinks:
            sink.show(start)
        cancellation.hasty = True  # while the prompt is read no event comes that could be waited for
        try:
            for entry in cancellation.watch(entries):
                if isinstance(entry, Prompt):
                    cancellation.hasty = False
                    prompt = entry
                for sink in sinks:
                    sink.show(entry)
        except Cancelled:
            pass
        finally:
            cancellation.hasty = False
    text = summary.finish.text if summary.finish else "".join(commit.text for commit in summary.commits)
    thinking = summary.finish.thinking if summary.finish else "".join(commit.thinking for commit in summary.commits)
    return Outcome(text, thinking, summary.finish, prompt, summary)


def _view(display: Display) -> LiveView:
    environment = display.environment
    painter = Painter.on_terminal(environment.stderr.fileno(), environment.encode_for_terminal)
    return LiveView(painter, Palette(display.color, environment.unicode), display.show_thinking)


def _sinks(display: Display, view: LiveView | None, record: Path | None) -> Iterator[Sink]:
    environment = display.environment
    thinking = environment.whisper if display.show_thinking else None
    if display.markdown:
        render: Callable[[str], str] = partial(rendered, environment, display.color)
        yield MarkdownFlow(render, environment.write, view, thinking)
    else:
        yield AnswerSink(Target(environment), view, None, thinking)
    if record is not None:
        yield JsonLinesSink(Target(environment, record))
