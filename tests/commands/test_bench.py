"""``dgemma bench``: real runs of nano and of random weights, held against the schema, and everything it refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Run
from jsonschema import Draft202012Validator

from dgemma_cli.catalog.names import NANO_FOLDER
from dgemma_cli.engine import probe, rates

SCHEMA = json.loads((files("dgemma_cli.bench") / "schema.json").read_text())


def validate(document: Any) -> dict[str, Any]:
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(document)
    found: dict[str, Any] = document
    return found


@pytest.fixture
def dgemma(dgemma: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """``dgemma bench``, where no models are."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("DGEMMA_MODEL", raising=False)
    monkeypatch.setattr(rates, "_PRODUCTS", 2)
    return partial(dgemma, "bench")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A short prompt, so that a run takes a second."""
    file = tmp_path / "own.txt"
    file.write_text("Sort these words: Berlin, Oslo, Athens\n")
    return file


FLAGS = ["bench", "-m", "nano", "-o", "json", "--repetitions", "2", "--presets", "reference"]


def test_the_command_as_ci_runs_it(tmp_path: Path) -> None:
    """A process of its own; one document on standard output, and no more."""
    done = subprocess.run(
        [sys.executable, "-m", "dgemma_cli", *FLAGS],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DGEMMA_DEBUG": "0"},
        timeout=300,
        check=True,
    )
    found = validate(json.loads(done.stdout))
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    assert found["flags"] == FLAGS
    target = found["targets"][0]
    assert (target["model"], target["format"], target["device"], target["dtype"]) == ("nano", "bf16", "cpu", "float32")
    assert 0 < target["experts_used"] <= target["experts"] == 4
    assert target["rate"]["kind"] == "compute"
    assert [row["prompt"] for row in found["rows"]][-1] == "all"
    assert len(found["rows"]) == 9
    for row in found["rows"]:
        assert row["ms_per_step"]["count"] == 2
        assert 0 < row["floor"]["reached"] < 1
        assert row["steps"] >= 2 * row["blocks"]  # the reference takes two at the least
    one = found["rows"][0]
    assert len(one["samples"]) == 2
    assert one["samples"][0]["text"] == one["samples"][1]["text"]
    assert sum(block["steps"] for block in one["samples"][0]["blocks"]) == one["steps"]


def test_all_there_is_and_a_comparison_with_itself(dgemma: Run, own: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        '{"prompt": "What is the capital of France?", "answer": "The capital of France is Paris."}\n'
        '{"prompt": "What is the capital of France?", "answer": "Lyon.", "family": "wrong"}\n'
    )
    file = tmp_path / "report.json"
    asked = ["-m", "nano", "--prompt", str(own), "--presets", "reference,fast", "--tasks", str(tasks), "--profile"]
    asked += ["--repetitions", "2", "--output", str(file)]
    code, out, _ = dgemma(*asked, "-o", "json")
    assert (code, out) == (0, "")
    found = validate(json.loads(file.read_text()))
    assert [(row["prompt"], row["preset"]) for row in found["rows"]] == [("own.txt", "reference"), ("own.txt", "fast")]
    quality = found["targets"][0]["quality"]
    assert [(each["preset"], each["right"], each["tasks"]) for each in quality] == [("reference", 1, 2), ("fast", 1, 2)]
    assert quality[0]["families"]["wrong"] == {"tasks": 1, "right": 0}
    assert {part["part"] for part in found["targets"][0]["profile"]["parts"]} >= {"experts", "attention", "sampling"}

    old = tmp_path / "old.json"
    file.rename(old)
    code, _, _ = dgemma(*asked, "-o", "json", "--compare", str(old))
    compared = validate(json.loads(file.read_text()))["comparison"]
    assert code == 0
    assert len(compared["rows"]) == 2
    assert all(row["same_text"] for row in compared["rows"])

    code, out, _ = dgemma(*asked[:-2], "--compare", str(old))
    assert code == 0
    for told in ("| own.txt | reference |", "exact (95 %)", "Where a step's time goes", "█", "## Against the run of"):
        assert told in out
    assert all(len(line) < 200 for line in out.splitlines())


def test_csv_and_lines_are_the_rows_of_the_document(dgemma: Run, own: Path) -> None:
    asked = ["-m", "nano", "--prompt", str(own), "--repetitions", "1", "--warmup", "0"]
    code, out, _ = dgemma(*asked, "-o", "csv")
    [row] = csv.DictReader(io.StringIO(out))
    assert (code, row["model"], row["prompt"], row["ms_per_step.count"]) == (0, "nano", "own.txt", "1")
    assert float(row["floor.ms"]) > 0
    code, out, _ = dgemma(*asked, "-o", "jsonl")
    run, line = map(json.loads, out.splitlines())
    assert (code, run.pop("line"), line.pop("line")) == (0, "run", "row")
    validate(run | {"rows": [line]})


def test_fixed_steps_and_contexts(dgemma: Run) -> None:
    asked = ["-m", "nano", "--fixed-steps", "3", "--contexts", "100,1k", "--repetitions", "1", "--warmup", "0"]
    code, out, err = dgemma(*asked, "--max-tokens", "64", "-o", "json")
    found = validate(json.loads(out))
    assert code == 0
    for row, context in zip(found["rows"], (100, 1024, None), strict=True):
        assert (row["context"], row["preset"], row["fixed_steps"]) == (context, None, 3)
        assert (row["steps_per_block"]["min"], row["steps_per_block"]["max"]) == (3, 3)
        assert row["steps"] == 3 * row["blocks"]
        if context is not None:
            assert context - 60 <= row["prompt_tokens"] <= context
    assert "every block took 3 steps" in err


def test_random_weights_mean_nothing_but_time(dgemma: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    asked = ["--random-weights", "nano", "--repetitions", "1", "--warmup", "0"]
    code, _, err = dgemma(*asked, "--formats", "int4,fp8", "--fixed-steps", "2", "-o", "json", "--output", str(file))
    found = validate(json.loads(file.read_text()))
    assert code == 0
    assert "warning: the weights are random: only ms a step counts, tokens a second would mean nothing" in err
    assert [target["format"] for target in found["targets"]] == ["int4", "fp8"]
    for row in found["rows"]:
        assert row["kept_tokens_per_second"] is row["tokens_per_forward"] is row["tokens"] is None
        assert (row["blocks"], row["steps"]) == (2, 4)
    code, out, err = dgemma(*asked, "--max-tokens", "64")
    assert (code, err) == (0, "")
    assert "note: the weights are random" in out
    assert "| random ids, 256 |" in out
    assert "8.0 (8)" in out  # steps are fixed, whether asked for or not


def test_random_weights_that_do_not_fit(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "host_memory", lambda: (10**9, 10**9))
    code, out, err = dgemma("--random-weights", "full")
    assert (code, out) == (5, "")
    assert err.startswith("error: random full (nvfp4) needs 19.1 GB")
    assert "1.0 GB are free on cpu" in err


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        (["--formats", "int4"], 2, "nano is one checkpoint, in one format"),
        (["-o", "new.json"], 2, "-o md|csv|json|jsonl; into a file: --output new.json"),
        (["--formats", "int5"], 2, "There is no format 'int5'"),
        (["--contexts", "8k"], 2, "more than the 4,096 that nano has"),
        (["--contexts", "5"], 2, "alone has 22 tokens, more than the context of 5"),
        (["--presets", "fast,quick"], 2, "There is no preset 'quick'"),
        (["--presets", "fast,fast"], 2, "--presets names the same twice"),
        (["--presets", "fast,"], 2, "--presets names nothing between two commas"),
        (["--fixed-steps", "3", "--presets", "fast"], 2, "--fixed-steps and --presets contradict each other"),
        (["--fixed-steps", "3", "--quality"], 2, "--fixed-steps and --quality contradict each other"),
        (["--fixed-steps", "0"], 2, "--fixed-steps must be at least 1, not 0"),
        (["--repetitions", "0"], 2, "--repetitions must be at least 1, not 0"),
        (["--warmup", "-1"], 2, "--warmup must be at least 0, not -1"),
        (["--max-tokens", "0"], 2, "--max-tokens must be at least 1, not 0"),
        (["--random-weights", "nano"], 2, "--random-weights and --model contradict each other"),
        (["--prompt", "/nowhere"], 2, "/nowhere cannot be read"),
        (["--tasks", "/nowhere"], 2, "/nowhere cannot be read"),
        (["--compare", "/nowhere"], 2, "/nowhere cannot be read"),
        (["--output", "/nowhere/x"], 6, "/nowhere/x cannot be written"),
        (["-o", "xml"], 2, "xml"),
        (["--device", "cuda:99"], 4, "error: "),
    ],
)
def test_what_is_refused(dgemma: Run, asked: list[str], code: int, told: str) -> None:
    found, out, err = dgemma("-m", "nano", *asked)
    assert (found, out) == (code, "")
    assert told in err
    assert err.startswith("error: ")


@pytest.mark.parametrize("asked", [["--quality"], ["--prompt", "x"], ["--presets", "fast"], ["--tasks", "x"]])
def test_what_random_weights_cannot_tell(dgemma: Run, asked: list[str]) -> None:
    code, _, err = dgemma("--random-weights", "nano", *asked)
    assert code == 2
    assert "random weights say nothing" in err


def test_quality_of_a_model_without_tasks(dgemma: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in NANO_FOLDER.iterdir():
        (copy / file.name).symlink_to(file)
    code, _, err = dgemma("-m", str(copy), "--quality")
    assert code == 2
    assert "no tasks with known answers come along" in err
    assert "--tasks FILE" in err


def test_a_model_that_is_not_here(dgemma: Run) -> None:
    code, _, err = dgemma("--formats", "int4,fp8")
    assert code == 3
    assert "diffusiongemma:int4 is not downloaded" in err


def test_a_report_with_nothing_in_common_is_refused(dgemma: Run, own: Path, tmp_path: Path) -> None:
    asked = ["-m", "nano", "--repetitions", "1", "--warmup", "0", "-o", "json"]
    old = tmp_path / "old.json"
    assert dgemma(*asked, "--prompt", str(own), "--output", str(old))[0] == 0
    code, out, err = dgemma(*asked, "--contexts", "100", "--compare", str(old))
    assert code == 2
    assert "no row in common" in err
    assert json.loads(out)["comparison"] is None  # what was measured is not lost


def test_the_schema_refuses() -> None:
    """Else it could not fail."""
    with pytest.raises(Exception, match="is a required property"):
        validate({"schema": "dgemma-bench"})
