"""The clock around a generation, and rounds of them. What is measured is any source of the engine's events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from dgemma_cli.bench.prompts import Prompt
from dgemma_cli.engine.events import BlockCommitted, BlockStarted, Denoised, Event, Finished, PromptEncoded, Statistics
from dgemma_cli.engine.options import Options
from dgemma_cli.sampling.presets import Preset

Clock: TypeAlias = Callable[[], float]

# The same for every repetition: these then write the same text in the same steps, and differ in time alone.
SEED = 1


class Target(Protocol):
    """What is measured: a model in this process, or a server somewhere."""

    def prepare(self, prompt: Prompt) -> Prompt:
        """``prompt`` with what can be worked out before any clock runs, such as its ids."""
        ...

    def generate(self, prompt: Prompt, options: Options) -> Iterator[Event]:
        """The events of one reply to a prepared prompt. Nothing is computed before the first is asked for."""
        ...

    def wait(self) -> None:
        """Let the device finish what it was given, so that a time read next is true."""
        ...

    def peak(self) -> int | None:
        """The most bytes held since the last call; None where it cannot be told."""
        ...


@dataclass(frozen=True, slots=True)
class Case:
    """What a row of the report measures. preset: its policies, None for ``fixed_steps``, which is how many every block
    then takes.
    """

    prompt: Prompt
    preset: str | None
    max_tokens: int
    fixed_steps: int | None = None

    @property
    def options(self) -> Options:
        """Without drafts: a step then costs what it costs in a run that nobody watches."""
        asked = Options(max_tokens=self.max_tokens, seed=SEED, preset=self.preset or Preset(), drafts=False)
        if self.fixed_steps is None:
            return asked
        # A draft that must be the same as in more steps than there are never is: the cap alone ends a block.
        return replace(asked, steps=self.fixed_steps, stability=self.fixed_steps)


@dataclass(frozen=True, slots=True)
class Block:
    """seconds: of its denoising steps; commit_seconds: of encoding it for the next block, 0 for the last one."""

    steps: int
    seconds: float
    commit_seconds: float
    kept: int
    converged: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One generation by the clock. Times are seconds from its beginning, the first draft's (0 if it was not asked for)
    of a run of its own; ids: the kept tokens; statistics: the engine's counts; peak: bytes held at the most.
    """

    prefill_seconds: float
    first_block_seconds: float
    seconds: float
    blocks: tuple[Block, ...]
    ids: tuple[int, ...]
    statistics: Statistics
    peak: int | None
    first_draft_seconds: float = 0.0


def measure(target: Target, prompt: Prompt, options: Options, clock: Clock = time.perf_counter) -> Sample:
    """Let ``target`` write one reply. The clock is read three times for it and twice for a block, never in a step."""
    target.peak()
    target.wait()
    blocks: list[Block] = []
    ids: list[int] = []
    first_block = block_begun = committed = 0.0
    begun = clock()
    for event in target.generate(prompt, options):
        match event:
            case PromptEncoded():
                prefill = clock() - begun
            case BlockStarted():
                # Encoding the block before goes on behind the host's back: it is no part of this block's steps.
                target.wait()
                block_begun = clock()
                if blocks:
                    blocks[-1] = replace(blocks[-1], commit_seconds=block_begun - committed)
            case BlockCommitted():
                committed = clock()
                first_block = first_block or committed - begun
                blocks.append(Block(event.steps, committed - block_begun, 0.0, len(event.ids), event.converged))
                ids.extend(event.ids)
            case Finished():
                seconds = clock() - begun
                counted = event.statistics
    return Sample(prefill, first_block, seconds, tuple(blocks), tuple(ids), counted, target.peak())


def first_draft(target: Target, prompt: Prompt, options: Options, clock: Clock = time.perf_counter) -> float:
    """Seconds until the first draft of a reply is there. The reply is given up then."""
    target.wait()
    begun = clock()
    for event in target.generate(prompt, replace(options, drafts=True)):
        if isinstance(event, Denoised):
            return clock() - begun
    raise AssertionError("a reply begins with a draft")


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each case runs. warmup: times that do not count; budget: seconds after which no further round begins
    (at least one runs), None for all ``repetitions`` whatever they take.
    """

    repetitions: int = 5
    warmup: int = 1
    budget: float | None = None


def rounds(
    target: Target,
    cases: Sequence[Case],
    plan: Plan,
    clock: Clock = time.perf_counter,
    tell: Callable[[str], None] = lambda _: None,
) -> list[list[Sample]]:
    """All cases, once in each round: a list of the cases' samples for every round.

    Round by round, so that what disturbs the machine for a while shows as noise of every case and not as the truth
    about one. tell: hears what is going on, between the measurements.
    """

    def one(case: Case) -> Sample:
        sample = measure(target, case.prompt, case.options, clock)
        # A run without drafts, which is the one to measure, does not show when its first one is there.
        return replace(sample, first_draft_seconds=first_draft(target, case.prompt, case.options, clock))

    begun = clock()
    for number in range(plan.warmup):
        tell(f"warm-up {number + 1} of {plan.warmup}")
        for case in cases:
            one(case)
    found: list[list[Sample]] = []
    while len(found) < plan.repetitions:
        tell(f"round {len(found) + 1} of {plan.repetitions}")
        round_begun = clock()
        found.append([one(case) for case in cases])
        now = clock()
        if plan.budget is not None and now + (now - round_begun) > begun + plan.budget:
            break
    return found
