"""Meeting nano: said once, to people only."""

from __future__ import annotations

import io
from pathlib import Path

from dgemma_cli.commands.demonstration import HINT, introduce
from dgemma_cli.terminal.environment import Environment


def meet(model: str, state: Path, terminal: bool = True) -> str:
    err = io.BytesIO()
    environment = Environment(
        stdin=io.BytesIO(),
        stdout=io.BytesIO(),
        stderr=err,
        stdin_is_terminal=terminal,
        stdout_is_terminal=terminal,
        stderr_is_terminal=terminal,
        stdout_is_pipe=False,
        encoding="utf-8",
        variables={"TERM": "xterm", "NO_COLOR": "1", "DGEMMA_STATE_DIR": str(state)},
    )
    introduce(model, environment)
    return err.getvalue().decode()


def test_once(tmp_path: Path) -> None:
    assert HINT in meet("nano", tmp_path / "state")
    assert meet("nano", tmp_path / "state") == ""


def test_not_in_a_pipe_nor_of_another_model(tmp_path: Path) -> None:
    assert meet("nano", tmp_path, terminal=False) == ""
    assert meet("diffusiongemma", tmp_path) == ""
    assert HINT in meet("nano", tmp_path)  # neither of them used it up


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert meet("nano", tmp_path / "file" / "below") == ""
