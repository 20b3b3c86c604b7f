"""The temperature of each denoising step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinearSchedule:
    """From just under t_max on the first step to just above t_min on the last of ``steps``.

    The step count runs backwards, as denoising does: T(r) = t_min + (t_max - t_min) * r / steps with r steps
    remaining, the present one among them.
    """

    t_min: float
    t_max: float
    steps: int

    def temperature(self, remaining: int) -> float:
        return self.t_min + (self.t_max - self.t_min) * remaining / self.steps
