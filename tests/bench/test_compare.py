"""A run against an older one: a planted slowdown is told, none is not, and what cannot be compared is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simulated import Clock, DelayedModel, Simulated, report, rows

from dgemma_cli.bench.compare import compare, read
from dgemma_cli.errors import UsageError

STEPS = "ms_per_step"


def run(step: float = 0.010, noise: float = 0.02, seed: int = 0, **other: Any) -> dict[str, Any]:
    clock = Clock()
    return report(rows(Simulated(clock, step=step, noise=noise, seed=seed, **other), clock))


def verdicts(found: dict[str, Any], figure: str = STEPS) -> list[str]:
    return [row["figures"][figure]["verdict"] for row in found["rows"]]


def test_a_slowdown_of_15_percent_is_told() -> None:
    """In every row, although each run's noise is 2 %, and whichever noise there is."""
    for seed in range(20):
        found = compare(run(seed=seed), run(step=0.0115, seed=1000 + seed))
        told = verdicts(found)
        assert told[-1] == "worse"  # over all prompts
        assert told.count("worse") >= 8  # of nine rows; noise may hide it in one
        assert found["rows"][-1]["figures"][STEPS]["ratio"] == pytest.approx(1.15, abs=0.03)
        assert "better" not in told


def test_no_slowdown_is_not_told() -> None:
    """Of 45 figures in each of 20 pairs of runs next to none is called a change."""
    told = [
        figure["verdict"]
        for seed in range(20)
        for row in compare(run(seed=seed), run(seed=1000 + seed))["rows"]
        for figure in row["figures"].values()
    ]
    assert len(told) == 900
    assert told.count("within noise") >= 898


def test_a_delayed_model_is_found_slower_and_the_old_one_faster() -> None:
    def measured(step: float) -> dict[str, Any]:
        clock = Clock()
        return report(rows(DelayedModel(clock, step, 0.02).target(), clock, names="ab", repetitions=3))

    slow = compare(measured(0.100), measured(0.115))
    assert verdicts(slow) == ["worse"] * 3
    assert verdicts(slow, "kept_tokens_per_second") == ["worse"] * 3
    assert verdicts(slow, "prefill_tokens_per_second") == ["within noise"] * 3
    assert [row["same_text"] for row in slow["rows"]] == [True, True, None]
    assert verdicts(compare(measured(0.115), measured(0.100))) == ["better"] * 3
    assert verdicts(compare(measured(0.100), measured(0.100))) == ["within noise"] * 3


def test_one_round_tells_nothing() -> None:
    clock = Clock()
    once = report(rows(Simulated(clock), clock, repetitions=1))
    assert set(verdicts(compare(once, run(step=0.02)))) == {"noise unknown"}


def test_what_else_differs_is_told() -> None:
    old, new = run(), run()
    new["environment"]["torch"] = "3"
    new["environment"]["gpu"] = {"name": "Fake", "driver": "1"}
    new["targets"][0]["threads"] = 4
    assert compare(old, new)["differences"] == [
        "gpu name: None before, Fake now",
        "gpu driver: None before, 1 now",
        "torch: 2 before, 3 now",
        "threads of simulated: 1 before, 4 now",
    ]


def test_only_the_same_rows_are_compared() -> None:
    clock = Clock()
    old, new = (report(rows(Simulated(clock), clock, names=names)) for names in ("abc", "bcd"))
    found = compare(old, new)
    # The rows over all prompts are over other prompts.
    assert [row["prompt"] for row in found["rows"]] == ["b", "c"]
    assert (found["only_old"], found["only_new"]) == (2, 2)
    with pytest.raises(UsageError, match="no row in common"):
        compare(old, report(rows(Simulated(clock), clock, names="xy")))


def test_another_text_is_told() -> None:
    old, new = run(), run()
    for sample in new["rows"][0]["samples"]:
        sample["text"] = "else"
    assert [row["same_text"] for row in compare(old, new)["rows"]][:2] == [False, True]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "is no JSON"),
        ("[]", "is no report"),
        ('{"schema": "other"}', "is no report"),
        ('{"schema": "dgemma-bench", "schema_version": 7}', "is of version 7"),
    ],
)
def test_files_that_are_no_report(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "old.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=told):
        read(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize("broken", [{"rows": 3}, {"rows": [{}]}, {"environment": {}}, {"targets": [{}]}, {"time": ...}])
def test_a_damaged_report(broken: dict[str, Any]) -> None:
    old = json.loads(json.dumps(run())) | broken
    if old["time"] is ...:
        del old["time"]
    with pytest.raises(UsageError, match="damaged"):
        compare(old, run())
