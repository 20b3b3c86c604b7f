"""What TAB offers on a command line, read off the tree of commands. Values are not converted: Typer takes pydantic for
that, and with it half the time of a TAB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import typer
from typer.core import TyperGroup

Offer: TypeAlias = tuple[str, str]
"""A word, and what it means ("" if that goes without saying)."""


def offers(tree: Any, words: Sequence[str]) -> list[Offer]:
    """What may stand for the last of ``words``, those typed behind ``dgemma``. Nothing where text or a file may."""
    line = _Line(tree)
    for word in words[:-1]:
        if not line.read(word):
            return []
    typed = words[-1] if words else ""
    return [offer for offer in line.next(typed) if offer[0].startswith(typed)]


class _Line:
    """A command line, as far as it is read."""

    def __init__(self, tree: Any) -> None:
        self._bare = False  # "--" was read: what follows are arguments
        self._enter(typer.Context(tree, info_name="dgemma", resilient_parsing=True))

    def _enter(self, context: typer.Context) -> None:
        self._context = context
        parameters: list[Any] = context.command.get_params(context)
        self._options = {
            name: option for option in parameters for name in (*option.opts, *option.secondary_opts) if name[:1] == "-"
        }
        self._arguments = [each for each in parameters if each.param_type_name == "argument"]
        self._given: set[str] = set()
        self._valued: Any = None  # the option whose value comes next

    def read(self, word: str) -> bool:
        """Go on by one word that stands. False if it is no command where one must be."""
        command = self._context.command
        if self._valued is not None:
            self._valued = None
        elif word == "--":
            self._bare = True
        elif word[:1] == "-" and len(word) > 1 and not self._bare:
            name, equals, _ = word.partition("=")
            option = self._options.get(name)
            if option is not None:
                self._given.add(option.name)
                self._valued = None if option.is_flag or equals else option
        elif isinstance(command, TyperGroup):
            if word not in command.commands:
                return False
            inner = command.commands[word]
            self._enter(typer.Context(inner, parent=self._context, info_name=word, resilient_parsing=True))
        elif self._arguments:
            self._context.params[self._arguments[0].name] = word
            if len(self._arguments) > 1 or self._arguments[0].nargs != -1:
                del self._arguments[0]
        return True

    def next(self, typed: str) -> Iterator[Offer]:
        """What may come now, of which ``typed`` is there already."""
        command = self._context.command
        if self._valued is not None:
            yield from self._values(self._valued, typed)
        elif typed[:1] == "-" and not self._bare:
            name, equals, value = typed.partition("=")
            if equals:
                option = self._options.get(name)
                if option is not None and not option.is_flag:
                    yield from ((f"{name}={each}", meaning) for each, meaning in self._values(option, value))
                return
            for name, option in self._options.items():
                if not option.hidden and (option.multiple or option.name not in self._given):
                    yield name, option.help or ""
        elif isinstance(command, TyperGroup):
            for name in command.commands:
                if name.startswith(typed):  # only these are imported
                    yield name, command.commands[name].get_short_help_str()
        elif self._arguments:
            yield from self._values(self._arguments[0], typed)

    def _values(self, parameter: Any, typed: str) -> Iterator[Offer]:
        for item in parameter.shell_complete(self._context, typed):
            yield str(item.value), item.help or ""
