"""Everything there is to do on a GPU, in one command and some eight minutes.

    python benchmarks/gpu.py --out FOLDER                 all of it, what matters most first
    python benchmarks/gpu.py --out FOLDER --sections nvfp4,tiles --seconds 500
    python benchmarks/gpu.py --out FOLDER --dry-run       on a CPU, tiny, in a few seconds: does it run at all?

Each section is a process of its own, so that one that fails, hangs or loses the device takes nothing with it: it is
ended with all that it started, and what it had measured is kept. A section writes its figures into a file of its own as
soon as it has them; results.json is written anew after each. A table comes last. Weights of full size are made on the
device from a seed.

It needs torch >= 2.11 with CUDA, Triton >= 3.6, pytest, pytest-xdist and hypothesis, and for one section transformers;
about 30 GB of the GPU's memory, 60 for the bfloat16 sections. Nothing is fetched. On a machine without a network bring
what is missing as wheels; the package itself need not be installed:

    pip download --no-deps -d wheels platformdirs tomlkit        # where there is a network
    pip install --no-index --no-deps wheels/*.whl                # where there is a GPU
    PYTHONPATH=. python3 benchmarks/gpu.py --out "$OUT"

With more time than one call has: ``--sections environment,tests,nvfp4``, then ``--sections bf16,transformers``, then
``--sections fp8,int4,tiles,attention,memory``; results of the same folder are kept and completed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# In the order of what matters; and the most seconds each may take.
SECTIONS = {
    "environment": 60,
    "nvfp4": 150,
    "tests": 150,
    "bf16": 120,
    "transformers": 200,
    "fp8": 90,
    "int4": 90,
    "tiles": 240,
    "attention": 120,
    "memory": 300,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and the sections' logs")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which, in this order (default: all)")
    parser.add_argument("--seconds", type=float, default=480, help="all ends after so many (default: 480)")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny models")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # what a child process is started with
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.section:
        from gpu_sections import run

        run(arguments.section, arguments.out / f"{arguments.section}.json", arguments.dry_run)
        return
    asked = arguments.sections.split(",")
    unknown = [name for name in asked if name not in SECTIONS]
    if unknown:
        parser.error(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    started = time.perf_counter()
    for name in asked:
        left = arguments.seconds - (time.perf_counter() - started)
        figures = _in_a_process(name, arguments.out, arguments.dry_run, left)
        print(f"{name}: {figures.get('error') or 'done'} ({figures['seconds']:.0f} s)", flush=True)
        _keep(arguments.out / "results.json", name, figures)
    print(table(json.loads((arguments.out / "results.json").read_text())))


def _in_a_process(name: str, out: Path, dry: bool, left: float) -> dict[str, Any]:
    """The figures of a section, with "error" if it did not end well: what it had measured until then is kept."""
    if left <= 0:
        return {"error": "not begun: no time left", "seconds": 0.0}
    file = out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--section", name, "--out", str(out), *(["--dry-run"] if dry else [])]
    limit = min(SECTIONS[name], left)
    started = time.perf_counter()
    with (out / f"{name}.log").open("w") as log, tempfile.TemporaryDirectory() as files:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": files, "PYTHONUNBUFFERED": "1"}
        code = _ended(command, limit, cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT)
    error = f"stopped after {limit:.3g} s" if code is None else f"ended with {code}, see {name}.log" if code else None
    figures: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if error:
        figures["error"] = error
        figures["log"] = (out / f"{name}.log").read_text(errors="replace")[-2000:]
    return figures | {"seconds": time.perf_counter() - started}


def _ended(command: list[str], limit: float, **how: Any) -> int | None:
    """The exit code; None if it took too long. Whatever it started is ended as well, so that nothing is left on the
    device.
    """
    process = subprocess.Popen(command, start_new_session=True, **how)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _keep(file: Path, name: str, figures: dict[str, Any]) -> None:
    results = json.loads(file.read_text()) if file.exists() else {}
    results[name] = figures
    write(file, results)


def write(file: Path, figures: dict[str, Any]) -> None:
    """All of it or nothing: whoever writes may be ended at any time."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(figures, indent=1) + "\n")
    new.replace(file)


def table(results: dict[str, Any]) -> str:
    """What there is to say of the results, for people."""
    lines = ["", "format  experts  context   step ms  look  soften  commit  sampling  floor ms  floor/step"]
    for name, section in results.items():
        for row in section.get("steps", []):
            lines.append(
                f"{name:<7} {row['distinct_experts']:>7.1f} {row['context']:>8,} {row['step_ms']:>9.3f}"
                f" {row['look_ms']:>5.2f} {row['soften_ms']:>7.3f} {row['commit_ms']:>7.3f}"
                f" {row['sampling_share']:>8.1%} {row['floor_ms']:>9.3f} {row['floor_share']:>10.1%}"
            )
    for name, section in results.items():
        told = {key: value for key, value in section.items() if isinstance(value, int | float | str)}
        told.pop("log", None)
        lines.append("")
        lines.append(name)
        lines += [
            f"  {key:<32} {value:.6g}" if isinstance(value, float) else f"  {key:<32} {value}"
            for key, value in told.items()
        ]
        for row in section.get("kernels", [])[:15]:
            lines.append(f"    {row['us']:>9.1f} us {row['launches']:>6.1f} x  {row['kernel'][:80]}")
        for row in [*section.get("tiles", []), *section.get("attention", [])]:
            lines.append(f"    {row}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
