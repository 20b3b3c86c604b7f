"""A run as JSON: one object with the result, or one line an entry. The lines are also the format of recordings.

Every line is an object with ``event`` (start, prompt, block, step, commit, finish) and ``time`` (seconds since the
start); the other keys are the fields of the entry of that name in ``entries.py``. A step's flags are strings of 0 and
1, a digit a position; its entropies are rounded to 0.01 nats; ``thought`` is left out where no position belongs to
one. The first line has ``schema``, which grows when a reader of an older one would go wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, get_type_hints

from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.entries import Block, Commit, Entry, Finish, Prompt, Start, Step
from dgemma_cli.terminal.untrusted import escape_controls

SCHEMA = 2  # 1 had no ``repaired`` and ``trimmed``
_TYPES: dict[str, type[Entry]] = {
    "start": Start,
    "prompt": Prompt,
    "block": Block,
    "step": Step,
    "commit": Commit,
    "finish": Finish,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_FLAGS = ("accepted", "changed", "thought")
_RESULT = (  # the keys of --json, in their order
    "text",
    "thinking",
    "thought_closed",
    "prompt_tokens",
    "tokens",
    "blocks",
    "steps",
    "tokens_per_forward",
    "effective_steps",
    "converged",
    "prefill_seconds",
    "first_block_seconds",
    "seconds",
    "tokens_per_second",
    "stop_reason",
    "seed",
    "repaired",
    "trimmed",
)


def result(start: Start, finish: Finish) -> str:
    """The object of ``--json``, one line without its newline."""
    values = asdict(finish)
    found = {"schema": SCHEMA, **{key: values[key] for key in _RESULT}}
    found |= {"model": start.model, "device": start.device, "dtype": start.dtype, "fit": start.fit}
    return _dump(found)


def to_line(entry: Entry, time: float) -> str:
    """One entry as a JSON line, without its newline."""
    values = asdict(entry)
    if isinstance(entry, Step):
        for key in _FLAGS:
            values[key] = "".join("01"[flag] for flag in values[key])
        if "1" not in values["thought"]:
            del values["thought"]
        values["entropy"] = [_short(value) for value in entry.entropy]
    head: dict[str, Any] = {"event": _NAMES[type(entry)], "time": round(time, 4)}
    if isinstance(entry, Start):
        head["schema"] = SCHEMA
    return _dump(head | values)


def read_lines(lines: Iterable[str], name: str) -> Iterator[tuple[float, Entry]]:
    """Time and entry of each line. name: of the file, for errors.

    A last line without its end, as a killed run leaves it, is left out. Raises UsageError that names the line.
    """
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
        except ValueError:
            if not line.endswith("\n") and number > 1:
                return
            raise _wrong(name, number, "is no JSON") from None
        if not isinstance(found, dict) or (number == 1 and "schema" not in found):
            raise _wrong(name, number, "does not begin a recording" if number == 1 else "is no object")
        if number == 1 and found.pop("schema") not in range(1, SCHEMA + 1):
            raise UsageError(f"{name} has a format this version does not know.", "Update dgemma.")
        try:
            yield read_entry(found)
        except ValueError as error:
            raise _wrong(name, number, f"is damaged ({error})") from None
    if number == 0:
        raise UsageError(f"{name} is empty.", "Make a recording with: dgemma run --record FILE …")


def read_entry(found: dict[str, Any]) -> tuple[float, Entry]:
    """Time and entry of one line's object, which is used up. Raises ValueError if it is damaged."""
    try:
        return _entry(found)
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from None


def _entry(found: dict[str, Any]) -> tuple[float, Entry]:
    kind = _TYPES[found.pop("event")]
    time = float(found.pop("time"))
    if kind is Start:
        found.setdefault("fit", "as stored")
    if kind is Step:
        found.setdefault("thought", "0" * len(found["draft"]))
        for key in _FLAGS:
            found[key] = tuple(flag == "1" for flag in found[key])
        found["draft"] = tuple(found["draft"])
        found["entropy"] = tuple(float(value) for value in found["entropy"])
        if len({len(found[key]) for key in (*_FLAGS, "draft", "entropy")}) != 1:
            raise ValueError("positions do not match")
    _check(kind, found)
    return time, kind(**found)


def _check(kind: type[Entry], found: Mapping[str, Any]) -> None:
    """Raise ValueError unless every plain field has the type the entry says."""
    hints = get_type_hints(kind)
    for one in fields(kind):
        if one.name not in found and one.default is not MISSING:
            continue  # an older recording
        wanted, value = hints[one.name], found[one.name]
        if wanted in (float, float | None):
            wanted = wanted | int
        if isinstance(value, tuple):
            continue
        if not isinstance(value, wanted):
            raise ValueError(f"{one.name} is {value!r}")
    if kind is Step and not all(isinstance(piece, str) for piece in found["draft"]):
        raise ValueError("draft holds something else than text")


def _wrong(name: str, number: int, what: str) -> UsageError:
    return UsageError(f"{name}: line {number} {what}.", "Recordings are made with: dgemma run --record FILE …")


def _short(value: float) -> float:
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def _dump(found: Mapping[str, Any]) -> str:
    return escape_controls(json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
