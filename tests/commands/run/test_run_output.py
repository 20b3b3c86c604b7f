"""What ``dgemma run`` gives to whom: the answer, files, figures; pipes and terminals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import ScriptedSession, script, spell
from scripted_run import Outcome, Run

from dgemma_cli.commands import loading


def test_the_answer_and_nothing_else(dgemma: Run) -> None:
    assert dgemma("run", "hi") == Outcome(0, b"Hello, world.\n", "")


def test_prompt_from_arguments_stdin_and_both(dgemma: Run, session: ScriptedSession) -> None:
    dgemma("run", "two", "words")
    dgemma("run", stdin=b"piped\n")
    dgemma("run", "-", stdin=b"dashed")
    dgemma("run", "asked", stdin="\ufeffpiped\r\n\n".encode())
    dgemma("run", "asked", stdin=b"")
    dgemma("run", "--", "--json")
    asked = [message.content for message in session.messages]
    assert asked == ["two words", "piped", "dashed", "piped\n\nasked", "asked", "--json"]


def test_a_model_in_the_prompts_place_is_told(dgemma: Run, session: ScriptedSession) -> None:
    told = "nano is read as the prompt's first word; as the model: -m nano\n"
    assert dgemma("run", "nano", "hi") == Outcome(0, b"Hello, world.\n", told)
    assert session.messages[-1].content == "nano hi"
    for arguments in (["-q", "nano", "hi"], ["nano hi"], ["-m", "nano", "nano", "hi"], ["hi", "nano"]):
        assert dgemma("run", *arguments).err == ""


def test_a_system_prompt_comes_first(dgemma: Run, session: ScriptedSession) -> None:
    dgemma("run", "hi", "-s", "Be brief.")
    assert [(message.role, message.content) for message in session.messages] == [
        ("system", "Be brief."),
        ("user", "hi"),
    ]


def test_options_reach_the_engine(dgemma: Run, session: ScriptedSession) -> None:
    dgemma("run", "hi", "-n", "5", "--seed", "3", "--steps", "2", "--think")
    (options,) = session.options
    assert (options.max_tokens, options.seed, options.steps, options.drafts) == (5, 3, 2, False)
    assert session.thinking == [True]
    dgemma("run", "hi")
    assert (session.options[1].max_tokens, session.options[1].seed, session.options[1].steps) == (2048, None, None)


def test_model_device_and_dtype_reach_the_loader(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    session = ScriptedSession(lambda: script(spell("x")))

    def load(*arguments: Any) -> ScriptedSession:
        asked.append(arguments[:3])
        return session

    monkeypatch.setattr(loading, "load_session", load)
    dgemma("run", "hi")
    dgemma("run", "hi", "-m", "folder", "--device", "cuda:1", "--dtype", "float32")
    monkeypatch.setenv("DGEMMA_MODEL", "other")
    monkeypatch.setenv("DGEMMA_DEVICE", "cpu")
    monkeypatch.setenv("DGEMMA_DTYPE", "bfloat16")
    dgemma("run", "hi")
    assert asked == [("diffusiongemma", "auto", "auto"), ("folder", "cuda:1", "float32"), ("other", "cpu", "bfloat16")]


def test_json_is_one_object(dgemma: Run) -> None:
    outcome = dgemma("run", "hi", "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    found = json.loads(outcome.out)
    assert outcome.out.count(b"\n") == 1
    assert (found["text"], found["seed"], found["model"], found["device"], found["dtype"]) == (
        "Hello, world.",
        7,
        "scripted",
        "cpu",
        "float32",
    )
    assert (found["tokens"], found["blocks"], found["steps"], found["stop_reason"]) == (13, 2, 8, "eos")


def test_jsonl_is_one_event_a_line(dgemma: Run) -> None:
    events = [json.loads(line) for line in dgemma("run", "hi", "--jsonl").out.splitlines()]
    block = ["block", *["step"] * 4, "commit"]
    assert [event["event"] for event in events] == ["start", "prompt", *block, *block, "finish"]
    assert "".join(event["text"] for event in events if event["event"] == "commit") == "Hello, world."
    assert events[-1]["text"] == "Hello, world."


def test_output_goes_to_a_file(dgemma: Run, tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    file.write_text("something longer that was there before")
    assert dgemma("run", "hi", "-o", str(file)) == Outcome(0, b"", "")
    assert file.read_bytes() == b"Hello, world.\n"
    dgemma("run", "hi", "--json", "-o", str(file))
    assert json.loads(file.read_text())["text"] == "Hello, world."


def test_a_recording_is_kept_beside_the_answer(dgemma: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    assert dgemma("run", "hi", "--record", str(file)).out == b"Hello, world.\n"
    recorded, printed = file.read_text(), dgemma("run", "hi", "--jsonl").out.decode()
    assert _without_times(recorded) == _without_times(printed)


def _without_times(lines: str) -> list[Any]:
    return [{**json.loads(line), "time": 0} for line in lines.splitlines()]


def test_statistics_go_to_stderr(dgemma: Run) -> None:
    outcome = dgemma("run", "hi", "--stats")
    assert outcome.out == b"Hello, world.\n"
    assert outcome.err.startswith(
        "13 tokens, 2 blocks, 8 steps, 1.6 tokens/forward, 218.8 ms/step, 6.5 tokens/s, first draft"
    )
    assert outcome.err.endswith("first block 0.50 s, total 2.00 s, converged, seed 7\n")
    assert outcome.err.count("\n") == 1


def test_verbose_tells_what_is_used(dgemma: Run) -> None:
    outcome = dgemma("run", "hi", "-v")
    assert outcome.out == b"Hello, world.\n"
    assert "scripted" in outcome.err
    assert "cpu (as asked)" in outcome.err
    assert "float32" in outcome.err
    assert "kernels scripted kernels" in outcome.err
    assert "steps   scripted, preset balanced" in outcome.err


def test_a_block_that_did_not_settle_is_told_unless_quiet(dgemma: Run, session: ScriptedSession) -> None:
    session.events = lambda: script(spell("Hello, world."), canvas=8, steps=3, converges=False)
    outcome = dgemma("run", "hi")
    assert outcome.err == "warning: blocks 1, 2 of 2 did not settle within 3 steps: read with care\n"
    assert outcome.out == b"Hello, world.\n"
    assert dgemma("run", "hi", "-q").err == ""


def test_thoughts_never_reach_stdout(dgemma: Run, session: ScriptedSession) -> None:
    session.events = lambda: script(spell("yes", thinking="hm\nhm"), canvas=4)
    assert dgemma("run", "hi") == Outcome(0, b"yes\n", "")
    assert dgemma("run", "hi", "--show-thinking") == Outcome(0, b"yes\n", "hm\nhm\n")
    assert json.loads(dgemma("run", "hi", "--json").out)["thinking"] == "hm\nhm"


def test_slow_holds_steps_and_does_not_count_the_time(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = iter(float(second) for second in range(10_000))
    monkeypatch.setattr("dgemma_cli.writing.time.sleep", slept.append)
    monkeypatch.setattr("dgemma_cli.writing.time.perf_counter", lambda: next(clock))
    outcome = dgemma("run", "hi", "--jsonl", "--slow", "40")
    assert slept == [0.04] * 8
    finish = json.loads(outcome.out.splitlines()[-1])
    waits = 2.0 - finish["seconds"]
    assert waits > 0
    assert 0.5 - finish["first_block_seconds"] == waits / 2


# --- what a pipe gets --------------------------------------------------------------------------------------------

NASTY = st.text(
    st.one_of(
        st.sampled_from("\x1b\x07\x9b\x9d\r\n\t\x00\x7f\u202e\u2066\u2028[]:;/ae1 "),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
).map(lambda text: text + "[bold]x[/] :smile: \x1b]0;title\x07")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=NASTY)
def test_a_pipe_gets_the_text_of_json_byte_for_byte(dgemma: Run, session: ScriptedSession, text: str) -> None:
    session.events = lambda: script(spell(text), canvas=8, steps=1)
    piped = dgemma("run", "hi").out
    found = json.loads(dgemma("run", "hi", "--json").out)["text"]
    assert piped == (found + "\n").encode()
    assert found == text


def test_a_terminal_gets_no_control_characters(dgemma: Run, session: ScriptedSession) -> None:
    text = "a\x1b[31mb\x07\x9bc\r\nd\u202e [bold]e[/] :smile:"
    session.events = lambda: script(spell(text), canvas=8, steps=1)
    outcome = dgemma("run", "hi", "-q", stdout_is_terminal=True)
    assert outcome.out.decode() == "a[31mbc\nd [bold]e[/] :smile:\n"
    shown = dgemma("run", "hi", "--json", "-q", stdout_is_terminal=True).out.decode()
    assert shown.rstrip("\n").isprintable()
    assert json.loads(shown)["text"] == text


def test_thoughts_on_a_terminal_are_dim_and_harmless(dgemma: Run, session: ScriptedSession) -> None:
    session.events = lambda: script(spell("yes", thinking="h\x1b[2Jm\x9b1m"), canvas=8)
    outcome = dgemma("run", "hi", "--show-thinking", "--no-live", stderr_is_terminal=True)
    assert outcome.out == b"yes\n"
    assert outcome.err.replace("\x1b[2m", "").replace("\x1b[0m", "") == "h[2Jm1m\n"


def test_a_terminal_that_lacks_a_character_gets_a_question_mark(dgemma: Run, session: ScriptedSession) -> None:
    session.events = lambda: script(spell("é世"), canvas=8, steps=1)
    assert dgemma("run", "hi", "-q", stdout_is_terminal=True, encoding="latin-1").out == b"\xe9?\n"
    assert dgemma("run", "hi", "-q", encoding="latin-1").out == "é世\n".encode()


def test_markdown_keeps_the_lines_of_a_verse(dgemma: Run, session: ScriptedSession) -> None:
    session.events = lambda: script(spell("One line,\nand *another*.\n\n- an item\n  of two lines"), canvas=64)
    shown = dgemma("run", "hi", "--markdown", "-q", "--no-color", stdout_is_terminal=True).out.decode()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert [line.rstrip() for line in plain.splitlines()] == [
        "One line,",
        "and another.",
        "",
        " • an item",
        "   of two lines",
    ]


def test_markdown_is_rendered_on_a_terminal_only_and_stays_harmless(dgemma: Run, session: ScriptedSession) -> None:
    session.events = lambda: script(spell("# Title\n\nsome **bold** [link](http://x) \x1b]0;t\x07:smile:"), canvas=8)
    shown = dgemma("run", "hi", "--markdown", "-q", stdout_is_terminal=True).out.decode()
    assert "\x1b[1mbold" in shown
    assert "**" not in shown
    assert ":smile:" in shown
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    plain = dgemma("run", "hi", "--markdown", "-q", "--no-color", stdout_is_terminal=True).out.decode()
    assert not any(f"\x1b[{code}m" in plain for code in range(30, 48))
