"""The settings of one generation: the caller's options over the checkpoint's defaults."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.sampling.acceptance import EntropyBound
from dgemma_cli.sampling.schedule import LinearSchedule
from dgemma_cli.sampling.stopping import StableAndConfident


@dataclass(frozen=True, slots=True)
class Sampler:
    """The policies a canvas is denoised by, and the cap on its steps."""

    steps: int
    schedule: LinearSchedule
    acceptance: EntropyBound
    stopping: StableAndConfident

    @classmethod
    def resolve(cls, options: Options, defaults: GenerationDefaults) -> Sampler:
        """Raises UsageError where the options contradict each other or the defaults."""

        def choose(name: str) -> float:
            value = getattr(options, name)
            return getattr(defaults, name) if value is None else value  # type: ignore[no-any-return]

        steps, t_min, t_max = int(choose("steps")), choose("t_min"), choose("t_max")
        if t_max < t_min:
            raise UsageError(f"t-max {t_max:g} is below t-min {t_min:g}.")
        return cls(
            steps=steps,
            schedule=LinearSchedule(t_min, t_max, steps),
            acceptance=EntropyBound(choose("entropy_bound")),
            stopping=StableAndConfident(int(choose("stability")), choose("confidence")),
        )
