"""The benchmark of GPUs, tried on a CPU with tiny models: every section runs, and one that fails costs no other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu
import gpu_sections
import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def results(out: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, str(BENCHMARK), "--out", str(out), "--dry-run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads((out / "results.json").read_text()), done.stdout


def test_a_dry_run(tmp_path: Path) -> None:
    found, table = results(tmp_path, "--sections", "environment,nvfp4,tests,transformers,attention,memory")
    for name, section in found.items():
        assert "error" not in section, (name, section)
        assert "errors" not in section, (name, section["errors"])
    assert found["environment"]["copy_bytes_per_second"] > 0
    steps = found["nvfp4"]["steps"]
    assert [row["context"] for row in steps] == [40, 100, 40, 100]
    # How many more without narrow routing cannot be said: of so few experts a token may find too few with a score above
    # 0, and take one of the others.
    assert all(0 < row["distinct_experts"] <= 8 for row in steps)
    for row in steps:
        assert row["step_ms"] > 0
        assert row["floor_ms"] > 0
        assert all(value > 0 for value in row["bytes"].values())
    assert found["nvfp4"]["parity_wrong"] == "None"
    assert found["nvfp4"]["parity_network"] < 1e-5
    assert found["nvfp4"]["recorded_as_called"]
    assert found["nvfp4"]["pass_ms"] > 0
    assert found["nvfp4"]["kernels"]
    assert found["tests"]["passed"] > 0
    assert found["tests"]["exit_code"] == 0
    assert " passed" in found["tests"]["summary"]
    assert found["transformers"]["largest_difference"] < 1e-3  # its network has our weights
    measured = [row for row in found["attention"]["attention"] if row.endswith(" us")]
    for layer in ("sliding 79 keys", "full 56 keys", "full 116 keys"):
        assert {f"{layer}, kernels", f"{layer}, torch"} <= {row.partition(":")[0] for row in measured}
    assert found["memory"]["as_stored_plan"] == "as stored"
    assert found["memory"]["as_stored_later_step_ms"] > 0
    assert "floor/step" in table


def test_a_section_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gpu.SECTIONS, "fp8", 0.01)
    for sections in ("fp8,tiles", "int4"):  # a second run completes the first one's results
        seconds = "0" if sections == "int4" else "60"
        monkeypatch.setattr(
            sys, "argv", ["gpu.py", "--out", str(tmp_path), "--dry-run", "--sections", sections, "--seconds", seconds]
        )
        gpu.main()
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["fp8"]["error"] == "stopped after 0.01 s"
    assert found["tiles"]["skipped"] == "there are no tiles on a CPU"
    assert found["int4"]["error"] == "not begun: no time left"
    assert "fp8: stopped after 0.01 s" in capsys.readouterr().out


def test_what_was_measured_before_the_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A section that hangs: its figures until then, its log, and nothing of what it started goes on."""
    script = tmp_path / "hangs.py"
    script.write_text(
        "import json, pathlib, subprocess, sys, time\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "(out / 'nvfp4.json').write_text(json.dumps({'child': child.pid}))\n"
        "print('so far', flush=True)\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setitem(gpu.SECTIONS, "nvfp4", 3)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(out), "--sections", "nvfp4"])
    gpu.main()
    found = json.loads((out / "results.json").read_text())["nvfp4"]
    assert (found["error"], found["log"]) == ("stopped after 3 s", "so far\n")
    stat = Path(f"/proc/{found['child']}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"  # or not yet waited for
    assert "nvfp4: stopped after 3 s" in capsys.readouterr().out


def test_the_whole_takes_no_longer_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits: list[float] = []

    def ended(command: list[str], limit: float, **_: Any) -> None:
        limits.append(limit)

    monkeypatch.setattr(gpu, "_ended", ended)
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--out", str(tmp_path), "--sections", "environment,nvfp4", "--seconds", "100"]
    )
    gpu.main()
    assert limits == [60, pytest.approx(100, abs=5)]


def test_a_part_that_fails_leaves_the_others(tmp_path: Path) -> None:
    bench = gpu_sections.Bench(tmp_path / "x.json", dry=True)
    bench.put(before=1)
    with bench.part("first"):
        raise RuntimeError("out of memory")
    bench.put(after=2)
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["before"], found["after"]) == (1, 2)
    assert "out of memory" in found["errors"]["first"]


def test_a_section_that_there_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), "--sections", "nvfp5"])
    with pytest.raises(SystemExit):
        gpu.main()
