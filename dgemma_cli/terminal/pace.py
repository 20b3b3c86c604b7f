"""How fast a run goes, measured from when its entries come."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dgemma_cli.terminal.entries import Commit, Entry, Prompt, Start, Step


@dataclass(frozen=True, slots=True)
class Pace:
    """step_seconds: of the last step; tokens_per_second: of all committed tokens. None: not known yet."""

    step_seconds: float | None = None
    tokens_per_second: float | None = None


class Clock:
    """Keeps ``pace``. The seconds for which steps are held (``Start.slow``) do not count."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._pause = 0.0
        self._begun = 0.0
        self._last_step = 0.0
        self._steps = 0
        self._tokens = 0

    def note(self, entry: Entry, now: float) -> None:
        """Take in an entry that came at ``now`` (seconds, from any origin)."""
        match entry:
            case Start():
                self._pause = entry.slow
            case Prompt():
                self._begun = now - entry.seconds
            case Step():
                self._steps += 1
                if entry.step > 1:
                    self.pace = replace(self.pace, step_seconds=max(0.0, now - self._last_step - self._pause))
                self._last_step = now
            case Commit():
                self._tokens += entry.tokens or 0
                seconds = now - self._begun - self._steps * self._pause
                if seconds > 0:
                    self.pace = replace(self.pace, tokens_per_second=self._tokens / seconds)
