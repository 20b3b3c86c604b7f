"""``dgemma list`` on a cache of 200 repositories, ten of them 4-bit DiffusionGemmas whose index names 47,067 tensors.

    python benchmarks/list_of_many.py

Whole processes, in turns with ``python -c "import typer"``: seconds of the processor (what a quiet machine would take
on the clock) and of the clock, medians of seven.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORIES, OURS, TENSORS, ROUNDS = 200, 10, 47_067, 7
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def repository(root: Path, number: int) -> None:
    """One repository as the Hub's library leaves it: blobs, and a snapshot of links to them."""
    ours = number < OURS
    folder = root / f"models--owner{number}--model{number}"
    snapshot = folder / "snapshots" / COMMIT
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot.mkdir(parents=True)
    shards = [f"model-0000{shard}-of-00002.safetensors" for shard in (1, 2)]
    weight_map = {f"model.decoder.tensor.{i}": shards[i % 2] for i in range(TENSORS)} if ours else {}
    files = {
        "config.json": json.dumps({"model_type": "diffusion_gemma" if ours else "llama"}),
        "model.safetensors.index.json": json.dumps({"weight_map": weight_map}),
        "tokenizer.json": "{}",
        **dict.fromkeys(shards, "weights"),
    }
    for name, content in files.items():
        (folder / "blobs" / f"{number}-{name}").write_text(content)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", f"{number}-{name}"))


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of the processor and of the clock."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        root = Path(home) / "hub"
        for number in range(REPOSITORIES):
            repository(root, number)
        environment = {**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        commands = {
            "dgemma list": [sys.executable, "-m", "dgemma_cli", "list"],
            "import typer": [sys.executable, "-c", "import typer"],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                found[name].append(timed(command, environment))
        for name, samples in found.items():
            cpu, wall = (statistics.median(column) for column in zip(*samples, strict=True))
            print(f"{name:13} {cpu:.3f} s of the processor, {wall:.3f} s on the clock")


if __name__ == "__main__":
    main()
