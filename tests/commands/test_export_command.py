"""``dgemma export`` from the command line: what it makes, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dgemma_cli.__main__ import main

sys.path.insert(0, str(Path(__file__).parent.parent / "terminal"))
from scripted import LANGUAGE, script, spell

from dgemma_cli.terminal.entries import Start
from dgemma_cli.terminal.json_lines import to_line
from dgemma_cli.terminal.narrator import Narrator


@pytest.fixture
def recording(tmp_path: Path) -> str:
    narrator = Narrator(LANGUAGE)
    entries = [Start("nano", "cpu", "float32", "Say it.", None)]
    entries += [narrator.tell(event) for event in script(spell("Hello, world."), canvas=8)]
    file = tmp_path / "run.jsonl"
    file.write_text("".join(to_line(entry, 0.1 * index) + "\n" for index, entry in enumerate(entries)))
    return str(file)


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("run.svg", b"<svg "), ("run.html", b"<!doctype html>"), ("run.cast", b'{"version": 2'), ("run.GIF", b"GIF89a")],
)
def test_the_ending_of_the_file_says_what_is_made(
    recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, beginning: bytes
) -> None:
    if name.endswith("GIF"):
        pytest.importorskip("PIL")
    file = tmp_path / name
    assert main(["export", recording, str(file)]) == 0
    assert file.read_bytes().startswith(beginning)
    assert capsys.readouterr() == ("", "")


def test_options_change_the_picture(recording: str, tmp_path: Path) -> None:
    file = tmp_path / "run.svg"
    made = set()
    for options in ([], ["--columns", "40"], ["--color-by", "entropy"], ["--speed", "0.1"], ["--slow", "900"]):
        assert main(["export", recording, str(file), *options]) == 0
        made.add(file.read_text())
    assert len(made) == 5
    long = tmp_path / "long.cast"
    assert main(["export", recording, str(long), "--rows", "9"]) == 0
    assert '"height": 9' in long.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run.png"], 2, "run.png has no ending that says what to make."),
        (["run.html", "--columns", "90"], 2, "--columns, --rows and --color-by are not for a page"),
        (["run.svg", "--font", "x.ttf"], 2, "--font is for a GIF"),
        (["run.svg", "--columns", "3"], 2, "columns must be 20 to 1000, not 3."),
        (["run.svg", "--rows", "4"], 2, "rows must be 5 to 1000, not 4."),
        (["run.svg", "--speed", "-1"], 2, "speed must be more than 0, not -1."),
        (["run.svg", "--slow", "-1"], 2, "slow must be at least 0, not -1."),
        (["run.gif", "--font", "pyproject.toml"], 2, "pyproject.toml is no font that can be read."),
        (["no/such/dir/run.svg"], 6, "no/such/dir/run.svg cannot be written: No such file or directory."),
    ],
)
def test_what_cannot_be_made_is_refused(
    recording: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    if "run.gif" in arguments:
        pytest.importorskip("PIL")
    assert main(["export", recording, *arguments]) == code
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_recording_without_a_step_is_refused(
    recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.jsonl"
    short.write_text("".join(Path(recording).read_text().splitlines(keepends=True)[:2]))
    assert main(["export", str(short), str(tmp_path / "run.svg")]) == 2
    assert capsys.readouterr().err == f"error: {short} holds no step to show.\n"


def test_a_gif_without_pillow_says_what_to_install(
    recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["export", recording, str(tmp_path / "run.gif")]) == 1
    assert capsys.readouterr().err.startswith("error: A GIF needs Pillow.\n  pip install 'dgemma-cli[gif]'\n")
