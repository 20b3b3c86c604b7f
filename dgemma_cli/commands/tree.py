"""What the tree of commands is made of: a command is imported when it is asked for, and a TAB converts no values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class _Sketched:
    """A command that takes a line apart for TAB without converting its values: for that Typer imports pydantic and
    builds a validator for each option, half the time of a TAB.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        if ctx.resilient_parsing:
            for parameter in parameters:
                parameter.process_value = lambda _, value: value
        return parameters


class Command(_Sketched, TyperCommand):
    """One command."""


class Group(_Sketched, TyperGroup):
    """A command that has commands."""


class Commands(typer.Typer):
    """Functions that become the commands of one group. Their help is plain text, and without arguments it is shown."""

    def __init__(self, **settings: Any) -> None:
        plain = {"rich_markup_mode": None, "context_settings": {"help_option_names": ["-h", "--help"]}}
        super().__init__(**{"cls": Group, "add_completion": False, "no_args_is_help": True, **plain, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=Command, **settings)


class Imported(Mapping[str, Any]):
    """Commands by name, each imported when it is looked up.

    homes: name -> "module:attribute" in this package, a function or ``Commands``, and an example for a function's help.
    """

    def __init__(self, homes: Mapping[str, tuple[str, str]]) -> None:
        self._homes = homes
        self._commands: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._commands:
            home, example = self._homes[name]
            module, _, attribute = home.partition(":")
            found = getattr(import_module(f"{__package__}.{module}"), attribute)
            self._commands[name] = get_command(found if isinstance(found, Commands) else _alone(name, found, example))
        return self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def _alone(name: str, function: Callable[..., None], example: str) -> Commands:
    commands = Commands()
    commands.command(name, epilog=f"Example: {example}")(function)
    return commands
