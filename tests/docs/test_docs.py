"""The documentation is true: generated pages are current, commands run (on nano), Python runs, links lead somewhere.

In the pages, ``console`` blocks hold commands behind "$ " that anybody can run; ``sh`` blocks hold those that need a
large model, a GPU or a network, and are checked for their flags alone.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import make_docs
import pytest
import typer
from typer.exceptions import TyperException
from typer.main import get_command

from dgemma_cli.commands.app import app
from dgemma_cli.engine import events
from dgemma_cli.terminal import entries

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands of the README that make an environment of their own; `python tools/check_package.py` and CI do the same.
ELSEWHERE = ("pip install",)


def blocks(page: Path, kind: str) -> Iterator[str]:
    """The contents of a page's code blocks of one kind."""
    yield from re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.split("\n")]
    found = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in found if not line.startswith(ELSEWHERE)]


@pytest.mark.parametrize("name", make_docs.PAGES)
def test_generated_pages_are_current(name: str) -> None:
    kept = (make_docs.FOLDER / name).read_text(encoding="utf-8")
    assert kept == make_docs.PAGES[name](), "run: python tools/make_docs.py"


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_runs(page: Path, tmp_path: Path) -> None:
    """All of a page in one folder, one after the other, as a reader would."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    script = bin_folder / "dgemma"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m dgemma_cli "$@"\n')
    script.chmod(0o755)
    variables = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "DGEMMA_CONFIG": str(tmp_path / "config.toml"),
        "DGEMMA_MODEL": "nano",
    }
    for command in commands(page):
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"


def lines_with_dgemma(page: Path) -> Iterator[str]:
    for kind in ("console", "sh"):
        for block in blocks(page, kind):
            for line in block.split("\n"):
                yield from re.findall(r"(?:^|\$ |[|;&] )(dgemma [^|;&#]*)", line)


def rows(page: str, heading: str) -> dict[str, set[str]]:
    """The first table under a heading: what its first cells quote, and what the others do."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(heading)[2].partition("\n\n|")[2]
    cells = [line.strip("|").partition("|") for line in text.partition("\n\n")[0].splitlines()]
    quoted = re.compile(r"`(\w+)`")
    return {name: set(quoted.findall(said)) for first, _, said in cells for name in quoted.findall(first)}


def test_every_field_of_an_event_is_told() -> None:
    told = rows("python.md", "## The events")
    assert set(told) == {each.__name__ for each in get_args(events.Event)}
    for each in get_args(events.Event):
        assert {field.name for field in fields(each)} <= told[each.__name__]
    assert set(get_args(events.StopReason)) <= told["Finished"]


def test_every_key_of_json_is_told() -> None:
    told = rows("json.md", "## `dgemma run --json`")
    finish = {field.name for field in fields(entries.Finish)} - {"rest"}
    assert set(told) == finish | {"schema", "model", "device", "dtype", "fit"}
    lines = rows("json.md", "Every line has `event`")
    for each in get_args(entries.Entry):
        if each is not entries.Finish:
            assert {field.name for field in fields(each)} <= lines[each.__name__.lower()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_exists(page: Path) -> None:
    """Parsed by the real command line, and not run."""
    for line in lines_with_dgemma(page):
        context = typer.Context(get_command(app), info_name="dgemma")
        command, words = context.command, shlex.split(line)[1:]
        try:
            while hasattr(command, "commands") and words and not words[0].startswith("-"):
                command = command.commands[words.pop(0)]
                context = typer.Context(command, parent=context, info_name="dgemma", resilient_parsing=True)
            command.parse_args(context, words)
        except (TyperException, KeyError) as error:
            pytest.fail(f"{page.name}: {line}: {error}")


@pytest.mark.parametrize("page", [page for page in PAGES if list(blocks(page, "python"))], ids=lambda page: page.name)
def test_python_runs(page: Path, tmp_path: Path) -> None:
    """Each block by itself, all in one process."""
    programs = list(blocks(page, "python"))
    runner = "import sys\nfor text in eval(sys.stdin.read()):\n    exec(compile(text, 'page', 'exec'), {})\n"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", runner],
        input=repr(programs),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target
