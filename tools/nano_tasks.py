"""Writes dgemma_cli/bench/nano_tasks.jsonl: held-out jobs of every family, for `dgemma bench --quality`.

python tools/nano_tasks.py
"""

from __future__ import annotations

import json
from pathlib import Path

from nano_data import distinct
from nano_jobs import FAMILIES

FILE = Path(__file__).parent.parent / "dgemma_cli" / "bench" / "nano_tasks.jsonl"
OF_EACH, SEED = 6, 2026


def lines() -> str:
    """A JSON object a line: family, prompt, answer."""
    rows = [
        {"family": family, "prompt": sample.prompt, "answer": sample.answer}
        for family in FAMILIES
        for sample in distinct(family, "heldout", OF_EACH, SEED)
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    FILE.write_text(lines(), encoding="utf-8")
    print(f"{FILE}: {lines().count(chr(10))} tasks")


if __name__ == "__main__":
    main()
