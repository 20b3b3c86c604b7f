"""Builds the wheel and the source archive and tries them as a stranger would.

    python tools/check_package.py

The metadata pass twine, the wheel is small and holds the package alone, and in an empty environment it writes an answer
with the model that comes along. Leaves nothing behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_BYTES = 15_000_000
EXPECTED = "The capital of France is Paris.\n"
IN_WHEEL = ("py.typed", "nano/model.safetensors", "nano/tokenizer.json", "nano/chat_template.jinja", "__main__.py")
IN_ARCHIVE = ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "tests/conftest.py", "completions/_dgemma")


def build(folder: Path) -> tuple[Path, Path]:
    """The source archive, and the wheel made from it."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, stdout=subprocess.DEVNULL)
    (archive,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return archive, wheel


def check_contents(archive: Path, wheel: Path) -> None:
    """Raises SystemExit where something is missing, strange or too large."""
    names = zipfile.ZipFile(wheel).namelist()
    strangers = [name for name in names if not name.startswith(("dgemma_cli/", "dgemma_cli-")) or "tests" in name]
    missing = [name for name in IN_WHEEL if f"dgemma_cli/{name}" not in names]
    with tarfile.open(archive) as opened:
        kept = {name.partition("/")[2] for name in opened.getnames()}
    missing += [name for name in IN_ARCHIVE if name not in kept]
    size = wheel.stat().st_size
    if strangers or missing or size > MOST_BYTES:
        raise SystemExit(f"{wheel.name}: {size:,} bytes; missing {missing}; not of the package {strangers}")
    print(f"{wheel.name}: {size / 1e6:.1f} MB, {len(names)} files", flush=True)


def try_it(wheel: Path, folder: Path) -> None:
    """Install the wheel into an empty environment and ask nano, from a folder without sources."""
    venv.create(folder / "empty", with_pip=True)
    python = folder / "empty" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DGEMMA_"))}
    variables |= {"HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    asked = ["run", "-m", "nano", "--seed", "1", "What is the capital of France?"]
    for command in ([str(python.with_name("dgemma"))], [str(python), "-m", "dgemma_cli"]):
        ran = subprocess.run(
            [*command, *asked],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        if ran.stdout != EXPECTED:
            raise SystemExit(f"nano from the wheel answers {ran.stdout!r}, not {EXPECTED!r}")
    print("nano answers from the installed wheel")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive, wheel = build(folder)
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", archive, wheel], check=True)
        check_contents(archive, wheel)
        try_it(wheel, folder)


if __name__ == "__main__":
    main()
