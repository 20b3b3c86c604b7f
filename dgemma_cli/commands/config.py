"""``dgemma config``: the settings, where each of them comes from, and changing them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dgemma_cli import settings
from dgemma_cli.catalog.names import near_names
from dgemma_cli.commands import defaults
from dgemma_cli.commands.tree import Commands
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.untrusted import visible

config = Commands(
    help="Settings: what options are when no flag is given.",
    epilog="Example: dgemma config set preset fast; dgemma config set chat.markdown false",
)


def _keys(context: typer.Context, args: list[str], incomplete: str) -> list[str]:
    return [key for key in defaults.settings(context.find_root().command) if key.startswith(incomplete)]


def _values(context: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """What the setting named before may be, where that is a choice."""
    try:
        parameter = _parameter(context, context.params.get("key") or "")
    except UsageError:
        return []
    if parameter.is_flag:
        return [word for word in ("true", "false") if word.startswith(incomplete)]
    return [str(item.value) for item in parameter.shell_complete(context, incomplete)]


Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", autocompletion=_keys, help="A setting, or COMMAND.SETTING for one command alone (chat.preset)."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class _Row:
    """key: of the file; value: in force, None if the built-in one is; source: in words."""

    key: str
    value: Any
    source: str


@config.command("path")
def path() -> None:
    """Print where the settings file lies, or would."""
    environment = Environment.current()
    environment.write(f"{settings.config_file(environment.variables)}\n")


@config.command("list")
def list_(context: typer.Context, json_output: Json = False) -> None:
    """List every setting, its value, and where that comes from."""
    environment = Environment.current()
    rows = _rows(context, environment)
    if json_output:
        described = {row.key: {"value": row.value, "source": row.source} for row in rows}
        environment.write(json.dumps(described, indent=2) + "\n")
        return
    cells = [(row.key, _shown(row.value), row.source) for row in rows]
    widths = [max(len(cell[column]) for cell in cells) for column in range(2)]
    for key, value, source in cells:
        environment.write(f"{key:{widths[0]}}  {visible(value):{widths[1]}}  {source}\n")


@config.command("get")
def get(context: typer.Context, key: Key) -> None:
    """Print the value of a setting.

    Where it comes from goes to standard error.
    """
    environment = Environment.current()
    key = _underscored(key)
    _parameter(context, key)
    name = key.rpartition(".")[2]
    rows = {row.key: row for row in _rows(context, environment)}
    row = rows[name] if rows[name].source.startswith("variable") else rows.get(key, rows[name])
    environment.write(visible(_shown(row.value)) + "\n")
    environment.say(row.source, dim=True)


@config.command("set")
def set_(
    context: typer.Context,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", autocompletion=_values, help="Its value.")],
) -> None:
    """Write a setting into the file."""
    environment = Environment.current()
    key = _underscored(key)
    file = settings.config_file(environment.variables)
    settings.change(file, key, defaults.parsed(_parameter(context, key), value, key))
    variable = defaults.PREFIX + key.rpartition(".")[2].upper()
    if environment.variables.get(variable):
        environment.say(f"warning: {variable} is set and wins over the file.", dim=True)


@config.command("unset")
def unset(context: typer.Context, key: Key) -> None:
    """Take a setting out of the file."""
    file = settings.config_file(Environment.current().variables)
    if not settings.holds(file, key):  # what stands there may go, even if it means nothing
        key = _underscored(key)
        _parameter(context, key)
    settings.change(file, key, None)


def _underscored(key: str) -> str:
    """The key that is meant by an option's name: max-tokens is max_tokens."""
    return key.replace("-", "_")


def _parameter(context: typer.Context, key: str) -> Any:
    """The option that ``key`` sets. Raises UsageError with near names."""
    tree = context.find_root().command
    known = defaults.settings(tree)
    command, dot, name = key.rpartition(".")
    if name in known and (not dot or command in known[name].uses):
        uses = known[name].uses
        return uses[command] if dot else next(iter(uses.values()))
    names = [*known, *(f"{each}.{setting.key}" for setting in known.values() for each in setting.uses)]
    near = near_names(key, names)
    hint = f"Did you mean {' or '.join(near)}?\n" if near else ""
    raise UsageError(f"There is no setting called {key!r}.", f"{hint}All there are: dgemma config list")


def _rows(context: typer.Context, environment: Environment) -> list[_Row]:
    tree = context.find_root().command
    file = settings.config_file(environment.variables)
    said = list(defaults.entries(tree, settings.read(file), file))
    rows = []
    for key, setting in defaults.settings(tree).items():
        in_file = [value for command, each, value in said if command is None and each.key == key]
        rows.append(_effective(setting, in_file, environment.variables, file))
        for command, each, value in said:
            if command is not None and each.key == key:
                rows.append(_Row(f"{command}.{key}", value, f"file {file}"))
    return rows


def _effective(setting: defaults.Setting, in_file: list[Any], variables: Mapping[str, str], file: Path) -> _Row:
    if variables.get(setting.variable):
        return _Row(setting.key, variables[setting.variable], f"variable {setting.variable}")
    if in_file:
        return _Row(setting.key, in_file[0], f"file {file}")
    return _Row(setting.key, _default(next(iter(setting.uses.values()))), "built in")


def _default(parameter: Any) -> Any:
    """What is built in, in words where the value says nothing."""
    if isinstance(parameter.show_default, str):
        return f"({parameter.show_default})"
    value = parameter.default
    return getattr(value, "value", value)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
