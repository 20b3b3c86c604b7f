"""Writes what the code itself can tell: docs/commands.md, docs/modules.md, and the man page docs/dgemma.1.

python tools/make_docs.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from dgemma_cli import __version__
from dgemma_cli.commands.app import app

FOLDER = Path(__file__).parent.parent / "docs"
PACKAGE = Path(__file__).parent.parent / "dgemma_cli"
COLUMNS = 80

_HEAD = """# Commands

Generated from `dgemma --help` by `python tools/make_docs.py`. Options with an `env var` can also be kept in the
[settings](settings.md).
"""
_EXIT_CODES = (
    ("0", "done"),
    ("1", "an unexpected failure"),
    ("2", "wrong usage"),
    ("3", "the model is not available"),
    ("4", "no usable device"),
    ("5", "it does not fit in memory"),
    ("6", "the disk is full or not writable"),
    ("7", "the network, the Hub or a server failed"),
    ("130", "interrupted"),
)


def commands(command: Any, parent: Any = None, name: str = "dgemma") -> Iterator[tuple[Any, Any]]:
    """Every command with its context, depth first, in the order of the help."""
    settings = command.context_settings
    context = typer.Context(command, parent=parent, info_name=name, terminal_width=COLUMNS, **settings)
    yield command, context
    for inner_name in getattr(command, "commands", {}):
        yield from commands(command.commands[inner_name], context, inner_name)


def reference() -> str:
    """docs/commands.md."""
    parts = [_HEAD]
    for command, context in commands(get_command(app)):
        parts.append(f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


def modules() -> str:
    """docs/modules.md: the first sentence of every file."""
    parts = ["# Modules\n\nGenerated from their first lines by `python tools/make_docs.py`.\n"]
    for folder in [PACKAGE, *sorted(each for each in PACKAGE.rglob("*") if (each / "__init__.py").exists())]:
        name = folder.relative_to(PACKAGE.parent).as_posix()
        parts.append(f"## {name}/\n\n{_first_sentence(folder / '__init__.py')}\n")
        files = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
        rows = [f"| `{file.name}` | {_first_sentence(file)} |" for file in files]
        if rows:
            parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _first_sentence(file: Path) -> str:
    """The first paragraph of a module's docstring, up to its first full stop that ends a sentence."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not text:
        raise SystemExit(f"{file} does not say what it is for.")
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s(?=[A-Z])", paragraph)[0]
    return sentence.replace("``", "`").replace("|", "\\|")


def man_page() -> str:
    """docs/dgemma.1, in the man macros."""
    lines = [
        f'.TH DGEMMA 1 "" "dgemma {__version__}" "User Commands"',
        ".SH NAME",
        "dgemma \\- run DiffusionGemma and watch text crystallise",
        ".SH SYNOPSIS",
        ".B dgemma",
        "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGS\\fR]...",
        ".SH DESCRIPTION",
        *_prose(get_command(app).help or ""),
        ".SH COMMANDS",
    ]
    for command, context in commands(get_command(app)):
        if context.parent is None:
            continue
        lines += [f".SS {_roff(context.command_path)}", *_prose(command.help or ""), *_prose(command.epilog or "")]
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if record is not None and "--help" not in record[0]:
                lines += [".TP", f".B {_roff(record[0])}", _roff(" ".join(record[1].split())) or "\\&"]
    lines += [".SH EXIT STATUS"]
    for code, meaning in _EXIT_CODES:
        lines += [".TP", f".B {code}", meaning]
    lines += [
        ".SH FILES",
        "Models lie in the Hugging Face cache (\\fBHF_HOME\\fR). \\fBdgemma config path\\fR tells where settings are.",
    ]
    return "\n".join(lines) + "\n"


def _prose(text: str) -> list[str]:
    if not text:
        return []
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return [line for paragraph in paragraphs for line in (".PP", _roff(paragraph))]


def _roff(text: str) -> str:
    """Text that the macros take as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


PAGES = {"commands.md": reference, "modules.md": modules, "dgemma.1": man_page}


def main() -> None:
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
