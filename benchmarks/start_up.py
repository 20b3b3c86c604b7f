"""What a TAB and other small commands cost: CPU time of the process (user and system), the least and the median.

python benchmarks/start_up.py [--rounds 15] [OTHER_PYTHON …]

Beside them stands what nobody gets under: an empty Python, and Python with Typer. OTHER_PYTHON are interpreters that
have another version of dgemma; all are run in turn, so that a busy machine is busy for each.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys

CASES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "python -c pass": (("-c", "pass"), {}),
    "import typer": (("-c", "import typer"), {}),
    "TAB in bash: run -m na": (("-m", "dgemma_cli", "run", "-m", "na"), {"_DGEMMA_COMPLETE": "bash"}),
    "TAB in fish: run --pres": (("-m", "dgemma_cli", "run", "--pres"), {"_DGEMMA_COMPLETE": "fish"}),
    "TAB in bash: a command": (("-m", "dgemma_cli", ""), {"_DGEMMA_COMPLETE": "bash"}),
    "dgemma --version": (("-m", "dgemma_cli", "--version"), {}),
    "dgemma --help": (("-m", "dgemma_cli", "--help"), {}),
    "dgemma run --help": (("-m", "dgemma_cli", "run", "--help"), {}),
    "dgemma list": (("-m", "dgemma_cli", "list"), {}),
}


def cpu_ms(command: list[str], variables: dict[str, str]) -> float:
    """CPU time of one run, all its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("others", nargs="*", metavar="OTHER_PYTHON")
    asked = parser.parse_args()
    pythons = [sys.executable, *asked.others]
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(asked.rounds):
        for name, (arguments, variables) in CASES.items():
            for python in pythons:
                taken.setdefault((name, python), []).append(cpu_ms([python, *arguments], variables))
    for name in CASES:
        for number, python in enumerate(pythons):
            times = taken[name, python]
            print(f"{name:26s} [{number}]  least {min(times):5.0f} ms  median {statistics.median(times):5.0f} ms")


if __name__ == "__main__":
    main()
