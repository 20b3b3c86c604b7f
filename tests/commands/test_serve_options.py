"""``dgemma serve``: which options it refuses before anything is loaded, and where its key comes from."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest

from dgemma_cli.__main__ import main
from dgemma_cli.commands import hosting


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be served."""
    found: list[Any] = []
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.delenv("DGEMMA_API_KEY", raising=False)
    monkeypatch.setattr(hosting, "hold", lambda serving, _environment: found.append(serving))
    return found


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--socket", "here.sock", "--port", "1"], "--socket goes without"),
        (["--socket", "here.sock", "--host", "::1"], "--socket goes without"),
        (["--keep", "soon"], "keep must be a time"),
        (["--cors-origin", "page.example"], "--cors-origin takes where pages come from, not 'page.example'."),
        (["--cors-origin", "https://page.example/chat"], "--cors-origin takes where pages come from"),
        (["--api-key-file", "missing"], "missing cannot be read: No such file"),
        (["--api-key-file", "empty"], "empty is empty"),
        (["--api-key-file", "bytes"], "bytes cannot be read"),
    ],
)
def test_refused(
    flags: list[str],
    told: str,
    held: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n")
    Path("bytes").write_bytes(b"\xff")
    assert main(["serve", "-m", "nano", *flags]) == 2
    assert told in capsys.readouterr().err
    assert held == []


def test_origins_are_as_browsers_send_them(held: list[Any]) -> None:
    given = ["https://page.example/", "http://localhost:3000", "*", "null"]
    assert main(["serve", "-m", "nano", *(word for each in given for word in ("--cors-origin", each))]) == 0
    assert held[0].reach.origins == ["https://page.example", *given[1:]]


def test_the_extra_is_named_where_it_is_missing(
    held: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["serve", "-m", "nano"]) == 2
    assert "pip install 'dgemma-cli[serve]'" in capsys.readouterr().err
    assert held == []


def test_the_key_of_the_file_wins_over_the_variables(
    held: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("of the file\n")
    monkeypatch.setenv("DGEMMA_API_KEY", "of the variable")
    assert main(["serve", "-m", "nano", "--socket", "here.sock", "--api-key-file", str(tmp_path / "key")]) == 0
    assert main(["serve", "-m", "nano", "--keep", "2h", "--max-body", "3"]) == 0
    assert [serving.reach.key for serving in held] == ["of the file", "of the variable"]
    assert (held[1].keep, held[1].max_body) == (7200, 3_000_000)
