"""The kernels compile for GPUs that are not here, and fit into them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/compile_kernels.py"
pytest.importorskip("triton")


def run_tool(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)  # a process that interprets cannot compile
    return subprocess.run([sys.executable, TOOL, *args], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("target", [80, 90])
def test_kernels_fit(tmp_path: Path, target: int) -> None:
    done = run_tool(
        tmp_path, "--target", str(target), "--only", "group_by_expert 256", "--dump", str(tmp_path / "dump")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) >= 1
    for row in rows:
        assert row["target"] == target
        assert 0 < row["registers"] <= 255
        assert row["local_bytes"] == 0
        assert ".target sm_" in next((tmp_path / "dump").glob(f"*{row['kernel']}*.ptx")).read_text()


@pytest.mark.parametrize(
    ("target", "words"), [(86, ["attention full split"]), (90, ["attention sliding split", "heads", "norms", "router"])]
)
def test_a_step_fits(tmp_path: Path, target: int, words: list[str]) -> None:
    """The kernels that ask most of a card, on one with little shared memory, and the rest of a step beside them."""
    done = run_tool(tmp_path, "--target", str(target), "--only", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= len(words)


def test_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    done = run_tool(tmp_path, "--only", "nothing is called so")
    assert done.returncode == 2
    assert "group_by_expert 256" in done.stderr
