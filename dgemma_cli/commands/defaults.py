"""Settings as defaults of options. Whatever option has a DGEMMA_ variable is a setting of the same name: one rule, and
no second list of them. Flags win over variables, variables over the file, the file over what is built in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from typer.exceptions import TyperException

from dgemma_cli.catalog.names import near_names
from dgemma_cli.commands.option_checks import check_device
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import DgemmaError, UsageError
from dgemma_cli.units import seconds

PREFIX = "DGEMMA_"
_OPTIONS = {entry.name for entry in fields(Options)}


@dataclass(frozen=True, slots=True)
class Setting:
    """key: as in the file, "max_tokens"; variable: of the environment; uses: the option in each command that has it."""

    key: str
    variable: str
    uses: Mapping[str, Any]


def settings(tree: Any) -> dict[str, Setting]:
    """All settings by key. tree: the command line, ``typer.main.get_command(app)``."""
    uses: dict[str, dict[str, Any]] = {}
    for name, command in tree.commands.items():
        for parameter in command.params:
            variable = parameter.envvar
            if isinstance(variable, str) and variable.startswith(PREFIX):
                uses.setdefault(variable.removeprefix(PREFIX).lower(), {})[name] = parameter
    return {key: Setting(key, PREFIX + key.upper(), found) for key, found in sorted(uses.items())}


def entries(tree: Any, values: Mapping[str, Any], file: Path) -> Iterator[tuple[str | None, Setting, Any]]:
    """The lines of a settings file: command (None for all of them), setting, value; each of them checked.

    Raises UsageError for a key or a table that means nothing, with near names, and for a value of the wrong kind.
    """
    known = settings(tree)
    for key, value in values.items():
        if isinstance(value, Mapping):
            if key not in tree.commands:
                raise _unknown(file, "command", key, tree.commands, "")
            for inner, inner_value in value.items():
                if inner not in known or key not in known[inner].uses:
                    here = [each for each, setting in known.items() if key in setting.uses]
                    raise _unknown(file, f"setting of {key}", inner, here, f"{key}.{inner}")
                _check(known[inner].uses[key], inner_value, f"{file}: {key}.{inner}")
                yield key, known[inner], inner_value
        else:
            if key not in known:
                raise _unknown(file, "setting", key, known, key)
            for parameter in known[key].uses.values():
                _check(parameter, value, f"{file}: {key}")
            yield None, known[key], value


def default_map(tree: Any, values: Mapping[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """The file's values as Click's default map: command -> parameter -> value."""
    found: dict[str, dict[str, Any]] = {}
    # What is said for one command wins, wherever it stands.
    for command, setting, value in sorted(entries(tree, values, file), key=lambda entry: entry[0] is not None):
        for name, parameter in setting.uses.items():
            if command in (None, name):
                found.setdefault(name, {})[parameter.name] = value
    return found


def parsed(parameter: Any, text: str, where: str) -> Any:
    """A value typed by a user, as the file keeps it. Raises UsageError."""
    value = _check(parameter, text, where)
    return value if isinstance(value, bool | int | float) else text


def _check(parameter: Any, value: Any, where: str) -> Any:
    if not isinstance(value, str | int | float):
        raise UsageError(f"{where} must be one value, not {value!r:.60}.")
    try:
        found = parameter.get_runtime_param().coerce(value, param=parameter, ctx=None)
        _check_sense(parameter.name, found)
    except TyperException as error:
        why = error.message.rpartition(": ")[2].removeprefix("Value error, ").partition(", unable to")[0]
        raise UsageError(f"{where}: {why}") from None
    except DgemmaError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from None
    return found


def _check_sense(name: str, value: Any) -> None:
    """Raises UsageError for what a command would refuse, as far as that hangs on this one setting."""
    if name in _OPTIONS:
        Options(**{name: value})
    elif name == "keep":
        seconds(value, name)
    elif name == "fit":
        from dgemma_cli.fit import parse_fit

        parse_fit(value)
    elif name == "device":
        check_device(value)


def _unknown(file: Path, what: str, name: str, candidates: Any, key: str) -> UsageError:
    near = near_names(name, candidates)
    hint = f"Did you mean {' or '.join(near)}?\n" if near else ""
    hint += f"This takes it out: dgemma config unset {key}\n" if key else ""
    return UsageError(f"{file}: there is no {what} called {name!r}.", f"{hint}All there are: dgemma config list")
