"""``dgemma run`` in the tests' process, with a scripted model and byte streams of its own."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from scripted import ScriptedSession, script, spell

from dgemma_cli.__main__ import main
from dgemma_cli.commands import loading
from dgemma_cli.terminal.environment import Environment


@dataclass(frozen=True)
class Outcome:
    code: int
    out: bytes
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> ScriptedSession:
    made = ScriptedSession(lambda: script(spell("Hello, world."), canvas=8))
    monkeypatch.setattr(loading, "load_session", lambda *_: made)
    return made


@pytest.fixture
def dgemma(session: ScriptedSession, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(
        *arguments: str, stdin: bytes | None = None, variables: Mapping[str, str] | None = None, **terminal: Any
    ) -> Outcome:
        out, err = io.BytesIO(), io.BytesIO()
        environment = Environment(
            stdin=io.BytesIO(stdin or b""),
            stdout=out,
            stderr=err,
            stdin_is_terminal=stdin is None,
            stdout_is_terminal=terminal.get("stdout_is_terminal", False),
            stderr_is_terminal=terminal.get("stderr_is_terminal", False),
            stdout_is_pipe=not terminal.get("stdout_is_terminal", False),
            encoding=terminal.get("encoding", "utf-8"),
            variables={"TERM": "xterm", **(variables or {})},
        )
        monkeypatch.setattr(Environment, "current", lambda: environment)
        code = main(list(arguments))
        return Outcome(code, out.getvalue(), err.getvalue().decode())

    return run
