"""What ``dgemma bench`` was asked for: the checkpoints, the prompts and the tasks, read before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dgemma_cli.bench.choices import Size
from dgemma_cli.bench.prompts import Collection, general, nano, read_prompt_file
from dgemma_cli.bench.shapes import config_of, default_format
from dgemma_cli.bench.tasks import Task, nano_tasks, read_tasks
from dgemma_cli.catalog.inventory import format_of
from dgemma_cli.catalog.known import DEFAULT
from dgemma_cli.catalog.names import NANO_FOLDER
from dgemma_cli.catalog.resolve import Location, resolve
from dgemma_cli.commands.bench import MAX_TOKENS, RANDOM_STEPS, Form
from dgemma_cli.errors import UsageError
from dgemma_cli.fit import Fit
from dgemma_cli.model.config import ModelConfig


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

    @property
    def steps(self) -> int | None:
        """Steps of every block, if they are fixed."""
        return RANDOM_STEPS if self.fixed_steps is None and self.random_weights is not None else self.fixed_steps

    def reply_tokens(self, config: ModelConfig) -> int:
        """Kept tokens of a reply at the most."""
        if self.max_tokens is not None:
            return self.max_tokens
        return MAX_TOKENS if self.random_weights is None else 2 * config.canvas_length


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint to be measured, before it is loaded. location: None for random weights."""

    name: str
    form: str
    config: ModelConfig
    location: Location | None


def subjects_of(request: Request) -> Iterator[Subject]:
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


def collection_of(request: Request, subjects: Sequence[Subject]) -> Collection:
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


def tasks_of(request: Request, subjects: Sequence[Subject]) -> list[Task]:
    """Those with known answers, if quality is to be judged."""
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
