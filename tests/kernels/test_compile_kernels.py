"""The kernels compile for GPUs that are not here, and fit into them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
import compile_kernels

TOOL = Path(__file__).parents[2] / "tools/compile_kernels.py"


def run_tool(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)  # a process that interprets cannot compile
    return subprocess.run([sys.executable, TOOL, *args], env=environment, capture_output=True, text=True)


def test_kernels_fit(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    names, targets = ["grouped nvfp4 256", "packed_linear int8 256", "to_planes 4"], [80, 90, 120]
    done = run_tool(tmp_path, "--target", *map(str, targets), "--only", *names, "--dump", str(dump))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    kernels = {"group", "gate_up", "down", "linear", "to_planes"}
    assert {(row["kernel"], row["target"]) for row in rows} == {(one, two) for one in kernels for two in targets}
    unpacked = set()
    for row in rows:
        assert 0 < row["registers"] <= 255
        assert row["local_bytes"] == 0
        (ptx,) = dump.glob(f"*-_{row['kernel']}-{row['target']}.ptx")
        for operands in re.findall(r"packed_element = 2.*", ptx.with_suffix(".ttgir").read_text()):
            # Two words that are unpacked at once are neighbours in a row: they have one scale.
            assert re.search(r"xi16, #ttg.dot_op<{opIdx = 0, parent = #\w+, kWidth = [24]}>", operands)
            unpacked.add(row["kernel"])
        text = ptx.read_text()
        assert f".target sm_{row['target']}" in text
        if row["kernel"] in ("gate_up", "down", "linear"):  # tensor cores, and 16-byte copies into shared memory
            assert ("wgmma.mma_async" if row["target"] == 90 else "mma.sync.aligned.m16n8k16") in text
            assert re.search(r"cp\.async\.cg\.shared\.global \[.*?\], \[.*?\], 0x10", text)
    assert unpacked == {"gate_up", "down", "linear"}


def test_what_is_too_much() -> None:
    fits = compile_kernels.Row("a", "b", 86, 4, 255, 0, 99 * 1024, "")
    assert fits.excess == ""
    assert dataclasses.replace(fits, shared_bytes=99 * 1024 + 1).excess.endswith("bytes of shared memory")
    assert dataclasses.replace(fits, local_bytes=88).excess == "88 bytes of local memory"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (86, ["attention full split"]),
        (
            90,
            [
                "attention sliding split",
                "canvas",
                "heads",
                "norms",
                "packed_gated int8 256",
                "router",
                "rows",
                "sampler",
            ],
        ),
    ],
)
def test_a_step_fits(tmp_path: Path, target: int, words: list[str]) -> None:
    """The kernels that ask most of a card, on one with little shared memory, and the rest of a step beside them."""
    done = run_tool(tmp_path, "--target", str(target), "--only", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= len(words)


@pytest.mark.parametrize(("target", "words"), [(86, ["attention full", "dense int8"]), (90, ["dense nvfp4"])])
def test_tiles_that_are_measured_fit(tmp_path: Path, target: int, words: list[str]) -> None:
    """Those that ask most; without words the tool compiles all of them, for every card."""
    done = run_tool(tmp_path, "--others", "--target", str(target), "--only", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({row["variant"] for row in rows}) >= 4 * len(words)
    assert {row["target"] for row in rows} == {target}


def test_prompts_of_different_lengths_share_what_is_compiled(tmp_path: Path) -> None:
    """Else whoever asks something new waits seconds for the compiler."""
    done = run_tool(tmp_path, "--target", "90", "--only", "prompt 300", "prompt 333")
    assert done.returncode == 0, done.stdout + done.stderr
    keys: dict[str, set[tuple[str, str]]] = {}
    for row in map(json.loads, done.stdout.splitlines()):
        keys.setdefault(row["variant"], set()).add((row["kernel"], row["key"]))
    assert keys["prompt 300"] == keys["prompt 333"]
    assert {"group", "gate_up", "down", "linear", "attend_tile", "merge"} < {kernel for kernel, _ in keys["prompt 300"]}


def test_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    done = run_tool(tmp_path, "--only", "nothing is called so")
    assert done.returncode == 2
    assert "group_by_expert 256" in done.stderr
