"""Writes completions/ for bash, zsh and fish, as the command line itself prints them.

python tools/make_completions.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "completions"
SCRIPTS = {"bash": "dgemma.bash", "zsh": "_dgemma", "fish": "dgemma.fish"}


def script(shell: str) -> str:
    """What makes ``shell`` complete ``dgemma``: it asks the command at each TAB, which imports no torch."""
    asked = subprocess.run(
        [sys.executable, "-m", "dgemma_cli"],
        env={**os.environ, "_DGEMMA_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return asked.stdout.strip() + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for shell, name in SCRIPTS.items():
        (FOLDER / name).write_text(script(shell), encoding="utf-8")
        print(f"completions/{name}")


if __name__ == "__main__":
    main()
