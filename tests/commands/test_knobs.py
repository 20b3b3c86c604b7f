"""Every sampler option of the command line reaches the engine, or is refused before anything is loaded."""

from __future__ import annotations

import io

import pytest

from dgemma_cli.__main__ import main
from dgemma_cli.commands import one_shot
from dgemma_cli.engine.options import Options

KNOBS = {
    "--preset": ("preset", "fast"),
    "--sampler": ("preset", "reference"),
    "--steps": ("steps", 7),
    "--horizon": ("horizon", 9),
    "--t-min": ("t_min", 0.25),
    "--t-max": ("t_max", 0.75),
    "--entropy-bound": ("entropy_bound", 0.5),
    "--spacing": ("spacing", 7),
    "--stability": ("stability", 2),
    "--confidence": ("confidence", 0.25),
    "--best-of": ("best_of", 3),
    "--repair": ("repair", True),
    "--no-guard": ("guard", False),
    "--seed": ("seed", 11),
    "--max-tokens": ("max_tokens", 13),
}


@pytest.fixture(autouse=True)
def _empty_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.mark.parametrize("flag", KNOBS)
def test_a_knob_reaches_the_engine(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []
    monkeypatch.setattr(one_shot, "perform", lambda request, _environment: asked.append(request.options))
    name, value = KNOBS[flag]
    assert main(["run", "-m", "nano", flag, *([] if isinstance(value, bool) else [str(value)]), "Hello!"]) == 0
    assert getattr(asked[0], name) == value
    assert getattr(Options(), name) != value  # else the test could not fail


@pytest.mark.parametrize(
    "flags",
    [
        ["--preset", "quick"],
        ["--steps", "0"],
        ["--entropy-bound", "0"],
        ["--spacing", "-1"],
        ["--confidence", "nan"],
        ["--best-of", "0"],
        ["--sampler", "fast"],
        ["--sampler", "reference", "--preset", "fast"],
    ],
)
def test_nonsense_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-m", "nano", *flags, "Hello!"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
