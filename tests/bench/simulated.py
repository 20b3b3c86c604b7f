"""A clock that only moves when it is told to, and things to measure that move it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import tiny
import torch

from dgemma_cli.bench import figures
from dgemma_cli.bench.floor import Device
from dgemma_cli.bench.local import LocalTarget
from dgemma_cli.bench.prompts import Prompt
from dgemma_cli.bench.runner import Case, Plan, rounds
from dgemma_cli.engine.events import BlockCommitted, BlockStarted, Denoised, Event, Finished, PromptEncoded, Statistics
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options

DEVICE = Device("compute", 1e9, None, None, 4)


@dataclass
class Clock:
    now: float = 100.0
    reads: int = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


@dataclass
class Simulated:
    """Writes replies of ``blocks`` blocks of ``steps`` steps each, in seconds that vary by ``noise``."""

    clock: Clock
    step: float = 0.010
    prefill: float = 0.020
    commit: float = 0.005
    noise: float = 0.0
    blocks: int = 2
    steps: int = 4
    seed: int = 0
    waits: int = 0
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def prepare(self, prompt: Prompt) -> Prompt:
        return prompt

    def wait(self) -> None:
        self.waits += 1

    def peak(self) -> int | None:
        return 1000

    def generate(self, prompt: Prompt, options: Options) -> Iterator[Event]:
        pace = self.random.gauss(1, self.noise)  # of this reply: what disturbs one step disturbs its neighbours
        self.clock.now += self.prefill * pace
        yield PromptEncoded(10, 0, 0.0)
        for block in range(self.blocks):
            yield BlockStarted(block, 8, 48)
            for step in range(self.steps):
                self.clock.now += self.step * pace
                if options.drafts:
                    yield Denoised(block, step + 1, (), (), (), ())
            yield BlockCommitted(block, (7,) * 8, self.steps, True, 8)
            self.clock.now += self.commit * pace
        steps = self.blocks * self.steps
        yield Finished("eos", Statistics(10, 0, 16, 17, self.blocks, steps, True, self.steps, 0, 0, 0, 1))


class DelayedModel(tiny.ScriptedModel):
    """A model whose passes take time by the clock."""

    def __init__(self, clock: Clock, step: float, encode: float) -> None:
        super().__init__([[3] * 8, [4] * 4 + [tiny.EOS] * 4], canvas=8)
        self.clock, self.step_seconds, self.encode_seconds = clock, step, encode

    def denoise(self, *arguments: Any) -> torch.Tensor:
        self.clock.now += self.step_seconds
        return super().denoise(*arguments)

    def encode(self, ids: torch.Tensor, cache: object) -> None:
        self.clock.now += self.encode_seconds
        super().encode(ids, cache)

    def target(self) -> LocalTarget:
        def write(ids: Any, options: Options) -> Iterator[Event]:
            self.prompt = 0
            return generate(self, ids, options)

        return LocalTarget(write, lambda _: (), lambda: None, lambda: 5)


def case(name: str = "a", preset: str = "reference", fixed_steps: int | None = None) -> Case:
    return Case(Prompt(name, "test", ids=(5, 6, 7)), None if fixed_steps else preset, 64, fixed_steps)


def rows(target: Any, clock: Clock, names: str = "abcdefgh", repetitions: int = 5) -> list[dict[str, Any]]:
    """The rows of a whole run."""
    cases = [case(name) for name in names]
    found = rounds(target, cases, Plan(repetitions, warmup=1), clock)
    made = figures.rows(cases, found, tiny.config(canvas=8), DEVICE, text=True)
    return [{"model": "simulated", "format": "none"} | row for row in made]


def report(rows: list[dict[str, Any]], **environment: Any) -> dict[str, Any]:
    """A report with as much in it as a comparison looks at."""
    host = {"processor": "simulated"}
    known = {"host": host, "gpu": None, "torch": "2", "cuda": None, "dgemma": "0", "commit": None}
    target = {
        "model": "simulated",
        "format": "none",
        "device": "cpu",
        "dtype": "float32",
        "fit": "as stored",
        "threads": 1,
    }
    target |= {"kernels": "none", "revision": None}
    return {"time": "then", "environment": known | environment, "targets": [target], "rows": rows}
