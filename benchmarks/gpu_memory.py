"""The section of ``gpu.py`` that loads a checkpoint of full size, as smaller and smaller cards would: seconds to load,
peaks against what was predicted, and what a step takes with experts in the host's memory.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# By the name of the figures: what --fit may take, and tokens of context to plan for and to encode.
CARDS = {"as_stored": ("off", 8192, 7900), "card_of_16": ("16GB", 8192, 7900), "card_of_12": ("12GB", 8192, 7900)}


def memory(put: Callable[..., None], dry: bool) -> None:
    """Put the figures of ``memory_at_full_size.py`` for each card, and what it said where it failed. The checkpoint's
    18.8 GB are written for it into the folder of temporary files; so the loads find them in the page cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        size = "tiny" if dry else "full"
        _run("tools/make_synthetic.py", f"{folder}/model", "--format", "nvfp4", "--size", size)
        for name, (fit, context, prompt) in {"as_stored": ("off", 64, 40)}.items() if dry else CARDS.items():
            file = Path(folder, f"{name}.json")
            device = "cpu" if dry else "cuda:0"
            asked = ["--device", device, "--fit", fit, "--context", str(context), "--prompt", str(prompt)]
            try:
                _run(
                    "benchmarks/memory_at_full_size.py", f"{folder}/model", *asked, "--steps", "8", "--json", str(file)
                )
            except subprocess.CalledProcessError as error:
                put(**{f"{name}_error": error.stderr[-1500:]})
                continue
            found: dict[str, Any] = json.loads(file.read_text())
            found["later_step_ms"] = statistics.median(found.pop("step_seconds")[2:]) * 1000
            put(**{f"{name}_{key}": value for key, value in found.items()})


def _run(script: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, str(HERE.parent / script), *arguments], capture_output=True, text=True)
    print(script, *arguments, done.stdout, done.stderr, sep="\n", flush=True)
    done.check_returncode()
