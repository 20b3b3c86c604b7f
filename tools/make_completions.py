"""Writes completions/ for bash, zsh and fish: what ``dgemma --install-completion`` installs.

python tools/make_completions.py
"""

from __future__ import annotations

from pathlib import Path

from dgemma_cli.commands.shells import SCRIPTS

FOLDER = Path(__file__).parent.parent / "completions"
FILES = {"bash": "dgemma.bash", "zsh": "_dgemma", "fish": "dgemma.fish"}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for shell, name in FILES.items():
        (FOLDER / name).write_text(SCRIPTS[shell], encoding="utf-8")
        print(f"completions/{name}")


if __name__ == "__main__":
    main()
