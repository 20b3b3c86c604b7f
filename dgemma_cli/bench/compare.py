"""A run held against an older one: what changed by more than noise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dgemma_cli.bench.figures import ALL, Row
from dgemma_cli.bench.statistics import Spread, change
from dgemma_cli.errors import UsageError

SCHEMA, VERSION = "dgemma-bench", 1

# What is compared, and which way is better.
_FIGURES = {
    "ms_per_step": "lower",
    "prefill_tokens_per_second": "higher",
    "kept_tokens_per_second": "higher",
    "first_draft_ms": "lower",
    "first_block_ms": "lower",
}
_KEYS = ("model", "format", "preset", "fixed_steps", "prompt", "context", "max_tokens")
# Where these differ, something else was measured than the program.
_SETTING = (("host", "processor"), ("gpu", "name"), ("gpu", "driver"), ("torch",), ("cuda",), ("dgemma",), ("commit",))
_TARGET = ("device", "dtype", "fit", "threads", "kernels", "revision")


def read(path: Path) -> dict[str, Any]:
    """A report that ``dgemma bench -o json`` wrote. Raises UsageError if the file is none, or of another version."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is no JSON.", "Write one: dgemma bench -o json --output FILE") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise UsageError(f"{path} is no report of dgemma bench.", "Write one: dgemma bench -o json --output FILE")
    if found.get("schema_version") != VERSION:
        raise UsageError(
            f"{path} is of version {found.get('schema_version')!r}, this dgemma reads version {VERSION}.",
            "Measure again with the dgemma that wrote it, or with this one.",
        )
    return found


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What changed from ``old`` to ``new``, row by row.

    Raises UsageError if ``old`` is damaged, or if the two have no row in common.
    """
    try:
        before = {_key(row, old): row for row in old["rows"]}
        after = {_key(row, new): row for row in new["rows"]}
        rows = [
            {name: row[name] for name in _KEYS}
            | {
                "same_text": _texts(before[key]) == _texts(row) if row["samples"] is not None else None,
                "figures": dict(_changes(before[key], row)),
            }
            for key, row in after.items()
            if key in before
        ]
        found = {
            "time": old["time"],
            "rows": rows,
            "only_old": len(before.keys() - after.keys()),
            "only_new": len(after.keys() - before.keys()),
            "differences": list(_differences(old, new)),
        }
    except (KeyError, TypeError, AttributeError):
        raise UsageError("The report to compare with is damaged.", "Measure again: dgemma bench -o json") from None
    if not rows:
        raise UsageError("The two reports have no row in common: there is nothing to compare.")
    return found


def _key(row: Row, report: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row measures. A row over all prompts is another one if the prompts are."""
    own = tuple(row[name] for name in _KEYS)
    if row["prompt"] != ALL:
        return own
    return *own, frozenset((each["prompt"], each["context"]) for each in report["rows"] if _siblings(each, row))


def _siblings(one: Row, other: Row) -> bool:
    return all(one[name] == other[name] for name in ("model", "format", "preset"))


def _texts(row: Row) -> set[str]:
    return {sample["text"] for sample in row["samples"]}


def _changes(old: Row, new: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, better in _FIGURES.items():
        if old[name] is None or new[name] is None:
            continue
        one, other = (Spread(row[name]["mean"], row[name]["sd"], row[name]["count"]) for row in (old, new))
        found = change(one, other)
        verdict: str = found
        if found in ("higher", "lower"):
            verdict = "better" if found == better else "worse"
        yield (
            name,
            {
                "old": old[name],
                "new": new[name],
                "ratio": other.mean / one.mean if one.mean else None,
                "verdict": verdict,
            },
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What else than time differs between the two, in words."""
    for path in _SETTING:
        one, other = (_at(report["environment"], path) for report in (old, new))
        if one != other:
            yield f"{' '.join(path)}: {one} before, {other} now"
    before = {(target["model"], target["format"]): target for target in old["targets"]}
    for target in new["targets"]:
        earlier = before.get((target["model"], target["format"]))
        if earlier is None:
            continue
        for name in _TARGET:
            if earlier[name] != target[name]:
                yield f"{name} of {target['model']}: {earlier[name]} before, {target[name]} now"


def _at(found: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        found = None if found is None else found[name]
    return found
