"""What Tab offers in a chat: commands, settings and their values, models, files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dgemma_cli.chat.settings import KNOBS, SWITCHES
from dgemma_cli.chat.slash import COMMANDS
from dgemma_cli.sampling.presets import PRESETS

_FILES = ("file", "load", "save", "record")


def complete(before: str, models: Callable[[str], Iterable[str]]) -> Iterator[tuple[str, int]]:
    """Continuations of the text before the cursor, and how much of it each replaces. models: names that begin so."""
    if not before.startswith("/") or before.startswith("//") or "\n" in before:
        return
    name, space, rest = before[1:].partition(" ")
    if not space:
        found: Iterable[str] = (command for command in COMMANDS if command.startswith(name))
        rest = name
    elif name in _FILES:
        found = _files(rest)
    elif name == "model":
        found = models(rest)
    elif name == "set":
        knob, space, rest = rest.partition(" ")
        if not space:
            found, rest = [known for known in (*KNOBS, *SWITCHES) if known.startswith(knob)], knob
        else:
            values = ("on", "off") if knob in SWITCHES else (*PRESETS,) if knob == "preset" else ("default",)
            found = [value for value in values if value.startswith(rest)]
    elif name == "regen":
        found = [word for word in ("--seed ",) if word.startswith(rest)]
    else:
        return
    for text in found:
        yield text, len(rest)


def _files(start: str) -> list[str]:
    """Paths that begin so; folders end in a slash."""
    folder, slash, name = start.rpartition("/")
    try:
        entries = sorted(Path(folder + slash or ".").expanduser().iterdir())
    except OSError:
        return []
    return [
        f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in entries
        if entry.name.startswith(name) and (name or not entry.name.startswith("."))
    ]
