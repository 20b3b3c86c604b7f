"""The checkpoint's chat template: a Jinja program of strangers, run in a sandbox and within limits.

The settings are those that chat templates are written for (``transformers``: ``trim_blocks``, ``lstrip_blocks``,
loop controls, ``raise_exception``, ``strftime_now``, ``tojson`` without escapes, ``{% generation %}``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dgemma_cli.errors import CheckpointError, UsageError

SOURCE_LIMIT = 1_000_000  # characters; the published template has 17,336
OUTPUT_LIMIT = 1_000_000  # characters that a template may add to the messages
TIME_LIMIT = 10.0  # seconds; the published template takes a millisecond

HINT = "Restore chat_template.jinja, or fetch the model again with `dgemma pull`."


class Template:
    """A compiled chat template.

    CheckpointError if the source is too long or no Jinja. Nothing it does reaches files, modules or other templates.
    Its time, its source and its output are limited; the memory it may take in between is not.
    """

    def __init__(self, source: str) -> None:
        if len(source) > SOURCE_LIMIT:
            raise CheckpointError(
                f"The chat template is {len(source):,} characters long; at most {SOURCE_LIMIT:,} are accepted.",
                HINT,
            )
        self.source = source
        self._environment = _Environment()
        try:
            tree = self._environment.parse(source)
            self._variables = jinja2.meta.find_undeclared_variables(tree)
            _time_rounds(tree)
            code = self._environment.compile(tree)
        except (jinja2.TemplateError, RecursionError) as error:
            raise CheckpointError(f"The chat template is no valid Jinja: {_line(error)}", HINT) from error
        self._template = jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))

    def reads(self, variable: str) -> bool:
        """Whether the template looks at a variable of this name at all."""
        return variable in self._variables

    def render(self, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
        """The prompt's text, ready for the model's turn.

        variables: what else the template may read, such as ``bos_token`` and ``enable_thinking``.
        UsageError if the template refuses the messages; CheckpointError if it fails or breaks a limit.
        """
        limit = OUTPUT_LIMIT + sum(len(message["content"]) for message in messages)
        self._environment.deadline = time.monotonic() + TIME_LIMIT
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(
                {**variables, "messages": messages, "add_generation_prompt": True, "tools": None, "documents": None}
            ):
                parts.append(part)
                length += len(part)
                if length > limit:
                    raise _LimitBroken(f"it writes more than {OUTPUT_LIMIT:,} characters of its own")
        except _Refused as error:
            raise UsageError(f"The model's chat template refuses this: {_line(error)}") from error
        except Exception as error:  # a template can make Python raise whatever it likes
            raise CheckpointError(f"The model's chat template failed: {_line(error)}", HINT) from error
        return "".join(parts)


class _Refused(Exception):
    """The template called ``raise_exception``."""


class _LimitBroken(Exception):
    """The template ran too long or wrote too much."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})
    deadline = 0.0  # on the monotonic clock

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
        self.filters["tojson"] = _tojson
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def watch_clock(self) -> None:
        """Called by every round of a loop and every call of a macro (``_time_rounds``)."""
        if time.monotonic() > self.deadline:
            raise _LimitBroken(f"it runs longer than {TIME_LIMIT:g} s")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Powers and repetitions can take for ever, or all memory, within one expression."""
        if operator == "**":
            raise _LimitBroken("it computes powers")
        for text, times in ((left, right), (right, left)):
            if isinstance(text, Sized) and isinstance(times, int) and len(text) * times > OUTPUT_LIMIT:
                raise _LimitBroken(f"it repeats something to more than {OUTPUT_LIMIT:,} characters")
        return super().call_binop(context, operator, left, right)


def _time_rounds(tree: nodes.Template) -> None:
    """Make loops and macros look at the clock: without either of them a template soon ends by itself."""
    for node in tree.find_all(nodes.Stmt):
        if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)):
            look = nodes.Call(nodes.EnvironmentAttribute("watch_clock"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(look).set_lineno(node.lineno, override=True))


class _Generation(jinja2.ext.Extension):
    """``{% generation %}…{% endgeneration %}`` marks what training takes a loss on: only its body matters here."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own it keeps HTML and other scripts as they are."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _line(error: Exception) -> str:
    """What an error says as one printable line: the template may have worded it."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(c for c in words[:300] if c.isprintable())
