"""The tree of commands: each is imported when it is asked for, so that a TAB need not import them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command


class Command(TyperCommand):
    """One whose help calls its arguments by their names alone: ID, not {ID} and ID <str>."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        arguments: list[Any] = [each for each in self.params if each.param_type_name == "argument"]
        for each in arguments:
            usage = each._usage_display_name().translate({ord("{"): None, ord("}"): None})
            each.display_type_rich = lambda ctx: None
            each._usage_display_name = lambda usage=usage: usage


class Commands(typer.Typer):
    """Functions that become the commands of one group. Help is plain text, and shown where no command is named."""

    def __init__(self, **settings: Any) -> None:
        plain = {"rich_markup_mode": None, "context_settings": {"help_option_names": ["-h", "--help"]}}
        super().__init__(**{"add_completion": False, "no_args_is_help": True, **plain, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """As Typer's."""
        return super().command(name, **{"cls": Command, **settings})


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

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def _alone(name: str, function: Callable[..., None], example: str) -> Commands:
    commands = Commands()
    commands.command(name, epilog=f"Example: {example}")(function)
    return commands
