"""The temperature of each denoising step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinearSchedule:
    """From just under t_max on the first step down to just above t_min on step ``horizon``, and t_min from there on.

    T(step) = t_min + (t_max - t_min) * (horizon - step + 1) / horizon, steps counted from 1. The reference ties the
    horizon to the cap on the steps, so that a lower cap also cools faster; here they are two settings.
    """

    t_min: float
    t_max: float
    horizon: int

    def temperature(self, step: int) -> float:
        remaining = max(0, self.horizon - step + 1)
        return self.t_min + (self.t_max - self.t_min) * remaining / self.horizon
