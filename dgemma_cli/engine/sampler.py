"""The settings of one generation: the caller's options over a preset over the checkpoint's defaults."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.sampling.acceptance import Acceptance, EntropyBound
from dgemma_cli.sampling.presets import PRESETS, Preset
from dgemma_cli.sampling.schedule import LinearSchedule
from dgemma_cli.sampling.stopping import SettledReply, StableAndConfident, Stopping


@dataclass(frozen=True, slots=True)
class Sampler:
    """The policies a canvas is denoised by, the cap on its steps, and how many are denoised side by side."""

    steps: int
    schedule: LinearSchedule
    acceptance: Acceptance
    stopping: Stopping
    best_of: int

    @classmethod
    def resolve(cls, options: Options, defaults: GenerationDefaults) -> Sampler:
        """Raises UsageError where the settings contradict each other."""
        preset = options.preset if isinstance(options.preset, Preset) else PRESETS[options.preset]

        def choose(name: str) -> float:
            asked, preferred = getattr(options, name), getattr(preset, name, None)
            value: float = asked if asked is not None else getattr(defaults, name) if preferred is None else preferred
            return value

        steps, t_min, t_max = int(choose("steps")), choose("t_min"), choose("t_max")
        if t_max < t_min:
            raise UsageError(f"t-max {t_max:g} is below t-min {t_min:g}.")
        stability, confidence = int(choose("stability")), choose("confidence")
        spacing = preset.spacing if options.spacing is None else options.spacing
        stopping: Stopping = StableAndConfident(stability, confidence)
        if preset.settled_reply:
            stopping = SettledReply(stability, confidence, preset.sure)
        return cls(
            steps=steps,
            schedule=LinearSchedule(t_min, t_max, options.horizon or preset.horizon or steps),
            acceptance=EntropyBound(choose("entropy_bound"), spacing),
            stopping=stopping,
            best_of=options.best_of or preset.best_of,
        )
