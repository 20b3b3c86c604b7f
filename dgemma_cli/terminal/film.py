"""A recording cut into shots: what to show, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.entries import Block, Entry, Finish, Start, Step
from dgemma_cli.terminal.frame import Scene
from dgemma_cli.terminal.json_lines import read_lines
from dgemma_cli.terminal.pace import Clock, Pace


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture and the seconds it stays."""

    scene: Scene
    pace: Pace
    seconds: float


@dataclass(frozen=True, slots=True)
class Film:
    """A recorded run. shots: the noise of each block, its steps, and the answer at last. finish: None if the recording
    was cut short.
    """

    start: Start
    shots: tuple[Shot, ...]
    finish: Finish | None

    @property
    def text(self) -> str:
        """The answer, as far as it was recorded."""
        return self.shots[-1].scene.text if self.shots else ""


def load_film(path: Path, speed: float, least: float) -> Film:
    """Read a recording. See ``cut`` for speed and least.

    Raises UsageError for a file that is no recording, or cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return cut(list(read_lines(file, str(path))), speed, least)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no recording.", "Make one with: dgemma run --record FILE …") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def cut(entries: Sequence[tuple[float, Entry]], speed: float, least: float) -> Film:
    """Make a film of timed entries. speed: 2 is twice as fast as recorded. least: seconds a shot stays at least."""
    start = entries[0][1]
    if not isinstance(start, Start):
        raise UsageError("The recording does not begin with its start.")
    scene, clock = Scene(), Clock()
    taken: list[tuple[float, Scene, Pace]] = []
    finish: Finish | None = None
    for time, entry in entries:
        clock.note(entry, time)
        scene.feed(entry)
        if isinstance(entry, Block | Step | Finish):
            taken.append((time, scene.snapshot(), clock.pace))
        if isinstance(entry, Finish):
            finish = entry
    ends = [time for time, _, _ in taken[1:]] + [taken[-1][0]] if taken else []
    shots = tuple(
        Shot(scene, pace, max(least, (end - time) / speed))
        for (time, scene, pace), end in zip(taken, ends, strict=True)
    )
    return Film(start, shots, finish)


def command_line(start: Start) -> str:
    """The command that made the recording, as a person would have typed it."""
    prompt = " ".join(start.prompt.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'dgemma run -m {start.model} "{prompt}"'
