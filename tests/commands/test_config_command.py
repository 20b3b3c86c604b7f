"""``dgemma config``, and settings on their way to the engine: flags, variables, the file, what is built in."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from typer.main import get_command

from dgemma_cli.__main__ import main
from dgemma_cli.commands import defaults, one_shot
from dgemma_cli.commands.app import app
from dgemma_cli.commands.one_shot import Request


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    found = tmp_path / "config.toml"
    monkeypatch.setenv("DGEMMA_CONFIG", str(found))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    found: list[Request] = []
    monkeypatch.setattr(one_shot, "perform", lambda request, _environment: found.append(request))
    return found


def run(*flags: str) -> int:
    return main(["run", *flags, "Hello!"])


def test_flags_win_over_variables_over_the_file(
    file: Path, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('model = "nano"\nsteps = 3\n')
    assert run() == 0
    monkeypatch.setenv("DGEMMA_STEPS", "5")
    assert run() == 0
    assert run("--steps", "7") == 0
    assert [request.options.steps for request in asked] == [3, 5, 7]
    assert {request.model for request in asked} == {"nano"}


def test_a_table_speaks_for_its_command_alone(file: Path, asked: list[Request]) -> None:
    file.write_text('model = "nano"\nsteps = 3\n[run]\nsteps = 4\n[chat]\nsteps = 5\n')
    assert run() == 0
    assert asked[0].options.steps == 4


def test_a_setting_gives_way_to_flags_it_contradicts(file: Path, asked: list[Request]) -> None:
    file.write_text('model = "nano"\nlive = true\nstats = true\nshow_thinking = true\ncolor_by = "entropy"\n')
    assert run("--quiet") == 0
    assert run("--json") == 0
    assert [(request.stats, request.show_thinking, request.live) for request in asked] == [
        (False, False, False),
        (True, False, False),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("presett = 1", "did you mean preset"),
        ("[cat]\nsteps = 1", "did you mean chat"),
        ("[run]\nmarkdown = true", "no setting of run called 'markdown'"),
        ("steps = 2.5", "steps: input should be a valid integer"),
        ('dtype = "half"', "dtype: 'half' is not one of"),
        ("steps = [1]", "must be one value"),
        ('preset = "fsat"', "preset: there is no preset 'fsat'"),
        ("[chat]\nt_min = -1", "chat.t_min: t-min must be more than 0"),
        ('keep = "soon"', "keep: keep must be a time"),
        ('fit = "tight"', "fit: --fit takes"),
        ('device = "tpu"', "device: 'tpu' is no device"),
        ("steps = ", "is no toml"),
    ],
)
def test_a_wrong_file_is_told_by_name(file: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(content)
    assert run() == 2
    err = capsys.readouterr().err
    assert str(file) in err and said in err.lower()
    assert main(["run", "--help"]) == 0
    assert main(["config", "path"]) == 0


def test_set_list_get_unset(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["config", "set", "steps", "9"]) == 0
    assert main(["config", "set", "chat.markdown", "no"]) == 0
    assert file.read_text() == "steps = 9\n\n[chat]\nmarkdown = false\n"
    monkeypatch.setenv("DGEMMA_PRESET", "fast")
    capsys.readouterr()
    assert main(["config", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == {"value": 9, "source": f"file {file}"}
    assert found["chat.markdown"] == {"value": False, "source": f"file {file}"}
    assert found["preset"] == {"value": "fast", "source": "variable DGEMMA_PRESET"}
    assert found["max_tokens"] == {"value": 2048, "source": "built in"}
    assert main(["config", "get", "steps"]) == 0
    assert capsys.readouterr().out == "9\n"
    assert main(["config", "unset", "steps"]) == 0
    assert main(["config", "get", "steps"]) == 0
    assert "the preset's" in capsys.readouterr().out


def test_a_variable_that_wins_is_told_when_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGEMMA_PRESET", "fast")
    assert main(["config", "set", "preset", "quality"]) == 0
    assert "DGEMMA_PRESET is set and wins" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [("stepss", "1"), ("rm.model", "x"), ("steps", "many"), ("chats.steps", "1"), ("preset", "fsat"), ("seed", "-1")],
)
def test_nonsense_is_not_written(file: Path, arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "set", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not file.exists()


def test_what_means_nothing_any_more_can_be_taken_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("presett = 1\nsteps = 3\n[chat]\nmark-down = true\n")
    for key, rest in (("presett", "steps = 3\n[chat]\nmark-down = true\n"), ("chat.mark-down", "steps = 3\n")):
        assert run() == 2
        assert f"This takes it out: dgemma config unset {key}\n" in capsys.readouterr().err
        assert main(["config", "unset", key]) == 0
        assert file.read_text() == rest
    assert main(["config", "unset", "presett"]) == 2  # it is not there


def test_a_key_may_be_spelt_as_the_option(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "set", "chat.max-tokens", "9"]) == 0
    assert file.read_text() == "[chat]\nmax_tokens = 9\n"
    assert main(["config", "get", "chat.max-tokens"]) == 0
    assert capsys.readouterr().out == "9\n"
    assert main(["config", "unset", "chat.max-tokens"]) == 0
    assert file.read_text() == ""


def test_what_removes_models_takes_none_from_the_settings() -> None:
    assert "rm" not in defaults.settings(get_command(app))["model"].uses
