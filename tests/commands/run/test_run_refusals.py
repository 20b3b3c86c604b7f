"""What ``dgemma run`` refuses, and what it says when something goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedSession, script, spell
from scripted_run import Run

from dgemma_cli.commands import loading
from dgemma_cli.errors import CheckpointError, DgemmaError, ModelUnavailable, NoDevice


def _raise(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


# --- what is refused ---------------------------------------------------------------------------------------------

REFUSED = [
    (["run"], None, "There is no prompt."),
    (["run"], b"", "There is no prompt."),
    (["run", "-"], b"", "The prompt is empty."),
    (["run", " "], None, "The prompt is empty."),
    (["run"], b" \n ", "The prompt is empty."),
    (["run"], b"caf\xe9\n", "Standard input is not valid UTF-8 (byte 4, in line 1)."),
    (["run", "a\udce9"], None, "The prompt is not valid UTF-8."),
    (["run", "hi", "-s", "a\udce9"], None, "The system message is no valid UTF-8"),
    (["run", "hi", "--steps", "0"], None, "steps must be at least 1, not 0."),
    (["run", "hi", "-n", "0"], None, "max-tokens must be at least 1, not 0."),
    (["run", "hi", "--seed", "-1"], None, "seed must be at least 0, not -1."),
    (["run", "hi", "--slow", "-1", "--jsonl"], None, "slow must be at least 0, not -1."),
    (["run", "hi", "--slow", "1"], None, "--slow holds steps, but nothing shows or keeps them here."),
    (["run", "hi", "--json", "--jsonl"], None, "--json and --jsonl contradict each other."),
    (["run", "hi", "-q", "-v"], None, "--quiet and --verbose contradict each other."),
    (["run", "hi", "-q", "--stats"], None, "--quiet and --stats contradict each other."),
    (["run", "hi", "-q", "--show-thinking"], None, "--quiet and --show-thinking contradict each other."),
    (["run", "hi", "--live"], None, "--live draws on standard error, which is no terminal here."),
    (["run", "hi", "--color-by", "entropy"], None, "--color-by colours the live view, which is off here."),
    (["run", "hi", "--markdown"], None, "--markdown is for an answer on a terminal."),
    (["run", "hi", "--json", "--show-thinking"], None, "--show-thinking has nothing to show"),
    (["run", "hi", "--dtype", "float8"], None, "Invalid value for '--dtype'"),
    (["run", "hi", "--steps", "x"], None, "Invalid value for '--steps'"),
    (["run", "hi", "--tempo"], None, "No such option: --tempo"),
    (["walk"], None, "No such command 'walk'."),
    (
        ["run", "hi", "--seed", "x"],
        None,
        "Invalid value for '--seed' (env var: 'DGEMMA_SEED'): Input should be a valid integer",
    ),
    (["run", "hi", "--seed", str(1 << 63)], None, "seed must be at most 9223372036854775807"),
]


@pytest.mark.parametrize(("arguments", "stdin", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_wrong_usage_is_one_line_a_hint_and_2(
    dgemma: Run, session: ScriptedSession, arguments: list[str], stdin: bytes | None, message: str
) -> None:
    outcome = dgemma(*arguments, stdin=stdin)
    assert outcome.code == 2
    assert outcome.out == b""
    first, *hint = outcome.err.splitlines()
    assert first.startswith(f"error: {message}")
    assert all(line.startswith("  ") for line in hint)
    assert session.options == []


def test_what_a_terminal_cannot_do_is_refused(dgemma: Run) -> None:
    terminal = {"stdout_is_terminal": True, "stderr_is_terminal": True}
    for arguments, variables, message in [
        (["--live"], {"TERM": "dumb"}, "--live cannot draw"),
        (["--live", "--jsonl"], {}, "--live and --jsonl cannot share the terminal."),
        (["--live", "-q"], {}, "--live and --quiet contradict"),
        (["--color-by", "entropy"], {"NO_COLOR": "1"}, "--color-by entropy needs colours"),
        (["--color-by", "entropy", "--no-color"], {}, "--color-by entropy needs colours"),
    ]:
        outcome = dgemma("run", "hi", *arguments, variables=variables, **terminal)
        assert (outcome.code, message in outcome.err) == (2, True), (arguments, outcome)


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (ModelUnavailable("There is no model 'nanu'.", "Near: nano\nSee: dgemma list"), 3, "There is no model 'nanu'."),
        (CheckpointError("config.json: the key 'x' is missing."), 3, "config.json: the key 'x' is missing."),
        (NoDevice("No CUDA device is visible."), 4, "No CUDA device is visible."),
        (MemoryError(), 5, "The memory is exhausted."),
        (DgemmaError("Something."), 1, "Something."),
        (OSError(28, "No space left on device", "x.bin"), 6, "No space is left on the device of x.bin."),
        (ValueError("odd\nthing"), 1, "unexpected failure: ValueError: odd thing"),
    ],
)
def test_errors_are_a_line_a_hint_and_a_code(
    dgemma: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, expected: str
) -> None:
    monkeypatch.setattr(loading, "load_session", _raise(error))
    outcome = dgemma("run", "hi")
    assert (outcome.code, outcome.out) == (code, b"")
    first, *hint = outcome.err.splitlines()
    assert first == f"error: {expected}"
    assert [line.strip() for line in hint] == (
        error.hint.splitlines() if isinstance(error, DgemmaError) else [line.strip() for line in hint]
    )
    assert "Traceback" not in outcome.err


def test_a_failure_of_triton_tells_how_to_do_without(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})
    monkeypatch.setattr(loading, "load_session", _raise(failure("shared memory")))
    outcome = dgemma("run", "hi")
    assert outcome.code == 1
    assert "OutOfResources: shared memory" in outcome.err
    assert "DGEMMA_KERNELS=reference" in outcome.err


def test_the_traceback_comes_with_debug(
    dgemma: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "load_session", _raise(NoDevice("None here.")))
    dgemma("run", "hi")
    assert capsys.readouterr().err == ""
    outcome = dgemma("run", "hi", "--debug")
    assert (outcome.code, outcome.err) == (4, "error: None here.\n")
    assert capsys.readouterr().err.startswith("Traceback")
    monkeypatch.setenv("DGEMMA_DEBUG", "1")
    dgemma("run", "hi")
    assert capsys.readouterr().err.startswith("Traceback")


def test_text_committed_before_a_failure_is_printed(dgemma: Run, session: ScriptedSession) -> None:
    def events() -> Iterator[Any]:
        for event in script(spell("Hello, world."), canvas=8):
            if getattr(event, "index", 0) == 1:
                raise MemoryError
            yield event

    session.events = events
    outcome = dgemma("run", "hi")
    assert (outcome.code, outcome.out) == (5, b"Hello, w\n")
    assert json_of_failure(dgemma) == b""


def json_of_failure(dgemma: Run) -> bytes:
    """Half a result is no result."""
    return dgemma("run", "hi", "--json").out


def test_a_file_that_cannot_be_written_is_told_before_the_work(
    dgemma: Run, session: ScriptedSession, tmp_path: Path
) -> None:
    for flag in ("-o", "--record"):
        outcome = dgemma("run", "hi", flag, str(tmp_path / "no" / "such.txt"))
        assert outcome.code == 6
        assert outcome.err.startswith("error: ")
        assert "such.txt cannot be written: No such file or directory." in outcome.err
    assert session.options == []


def test_a_failed_run_leaves_the_old_file_alone_and_makes_no_new_one(
    dgemma: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loading, "load_session", _raise(ModelUnavailable("No.")))
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("kept")
    assert dgemma("run", "hi", "-o", str(old)).code == 3
    assert dgemma("run", "hi", "-o", str(new)).code == 3
    assert old.read_text() == "kept"
    assert not new.exists()
