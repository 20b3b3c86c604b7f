"""Commands run in the tests' process."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from dgemma_cli.__main__ import main


class Outcome(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def dgemma(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs dgemma with nothing on its standard input: ``dgemma("pull", NAME, "--json")``. A traceback is a failure."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))

    def run(*arguments: str | Path) -> Outcome:
        code = main([str(argument) for argument in arguments])
        found = Outcome(code, *capfd.readouterr())
        assert "Traceback" not in found.err
        return found

    return run
