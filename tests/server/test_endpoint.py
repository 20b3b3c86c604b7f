"""``--endpoint``: another program's server, as vLLM behaves, and this program's own far away."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from command_fixtures import Outcome, Run
from fake_vllm import FakeVllm, fake_vllm
from running import Running, running

from dgemma_cli.__main__ import main
from dgemma_cli.commands import loading
from dgemma_cli.terminal.environment import Environment


@pytest.fixture
def vllm() -> Iterator[FakeVllm]:
    with fake_vllm() as server:
        yield server


@pytest.fixture
def dgemma(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process. Nothing may be loaded."""
    monkeypatch.setattr(loading, "load_session", lambda *_: pytest.fail("the model was loaded here"))

    def run(*arguments: str, variables: Mapping[str, str] | None = None) -> Outcome:
        out, err = io.BytesIO(), io.BytesIO()
        environment = Environment(
            stdin=io.BytesIO(),
            stdout=out,
            stderr=err,
            stdin_is_terminal=True,
            stdout_is_terminal=False,
            stderr_is_terminal=False,
            stdout_is_pipe=True,
            encoding="utf-8",
            variables={"TERM": "xterm", **(variables or {})},
        )
        monkeypatch.setattr(Environment, "current", lambda: environment)
        return Outcome(main(["run", *arguments]), out.getvalue().decode(), err.getvalue().decode())

    return run


def test_the_answer_and_what_was_asked(dgemma: Run, vllm: FakeVllm) -> None:
    found = dgemma(
        "Why is the sky blue?", "--endpoint", vllm.url, "--seed", "3", "-n", "99", "-s", "Be brief.", "--think"
    )
    assert found == Outcome(0, "The sky is blue.\n", "")
    assert vllm.asked == [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why is the sky blue?"},
            ],
            "chat_template_kwargs": {"enable_thinking": True},
            "model": vllm.models[0],
            "max_tokens": 99,
            "seed": 3,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_figures_that_nobody_told_are_left_open(dgemma: Run, vllm: FakeVllm) -> None:
    vllm.blocks = [("Hm.", ""), ("", "Blue.")]
    found = json.loads(dgemma("Why?", "--endpoint", vllm.url, "--json").out)
    assert (found["text"], found["thinking"], found["thought_closed"]) == ("Blue.", "Hm.", True)
    assert (found["prompt_tokens"], found["tokens"], found["stop_reason"]) == (12, 6, "eos")
    assert {found[key] for key in ("blocks", "steps", "tokens_per_forward", "converged", "seed")} == {None}
    vllm.thinking_field, vllm.usage, vllm.reason = "reasoning_content", None, "length"
    found = dgemma("Why?", "--endpoint", vllm.url, "--json", "--stats")
    told = json.loads(found.out)
    assert (told["thinking"], told["tokens"], told["stop_reason"]) == ("Hm.", None, "length")
    assert "stopped at --max-tokens" in found.err
    assert "None" not in found.err
    kinds = [json.loads(line)["event"] for line in dgemma("Why?", "--endpoint", vllm.url, "--jsonl").out.splitlines()]
    assert kinds == ["start", "commit", "commit", "finish"]


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (
            400,
            {"error": {"message": "max_tokens is too large", "type": "BadRequestError", "param": None, "code": 400}},
            2,
            "max_tokens is too large",
        ),
        (400, {"object": "error", "message": "old form", "type": "BadRequestError", "code": 400}, 2, "old form"),
        (404, {"detail": "Not Found"}, 2, "Not Found"),
        (422, {"detail": [{"loc": ["body"]}]}, 2, "loc"),
        (
            500,
            {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}},
            7,
            "EngineCore died",
        ),
        (502, "<html>Bad Gateway</html>", 7, "status 502"),
        (503, {"error": {"message": "\x1b[31mred", "code": 503}}, 7, "failed: [31mred"),
    ],
)
def test_its_errors_are_one_line(dgemma: Run, vllm: FakeVllm, status: int, body: Any, code: int, words: str) -> None:
    vllm.refusal = (status, body)
    found = dgemma("Hi", "--endpoint", vllm.url)
    assert (found.code, found.out) == (code, "")
    assert found.err.startswith(f"error: {vllm.url} ")
    assert words in found.err.splitlines()[0]
    assert "Traceback" not in found.err


def test_an_answer_that_breaks_off_keeps_what_came(dgemma: Run, vllm: FakeVllm) -> None:
    vllm.cut = True
    found = dgemma("Hi", "--endpoint", vllm.url)
    assert (found.code, found.out) == (7, "The sky is blue.\n")
    assert found.err.splitlines()[0].endswith("in the middle.")
    vllm.failure = {"error": {"message": "out of blocks", "type": "InternalServerError", "code": 500}}
    assert "out of blocks" in dgemma("Hi", "--endpoint", vllm.url).err


def test_the_key_comes_from_the_environment_alone(dgemma: Run, vllm: FakeVllm) -> None:
    vllm.key = "secret"
    found = dgemma("Hi", "--endpoint", vllm.url)
    assert (found.code, "DGEMMA_API_KEY" in found.err) == (7, True)
    assert dgemma("Hi", "--endpoint", vllm.url, variables={"DGEMMA_API_KEY": "secret"}).code == 0
    found = dgemma("Hi", "--endpoint", vllm.url.replace("//", "//me:secret@"))
    assert (found.code, "DGEMMA_API_KEY" in found.err, "secret" in found.err) == (2, True, False)


def test_which_model(dgemma: Run, vllm: FakeVllm) -> None:
    vllm.models = ["one", "two"]
    found = dgemma("Hi", "--endpoint", vllm.url)
    assert (found.code, "--model: one, two" in found.err) == (2, True)
    assert dgemma("Hi", "--endpoint", vllm.url, "-m", "two").code == 0
    assert vllm.asked[-1]["model"] == "two"
    found = dgemma("Hi", "--endpoint", vllm.url, "-m", "three")
    assert (found.code, "'three'" in found.err) == (2, True)
    vllm.models = []
    assert dgemma("Hi", "--endpoint", vllm.url).code == 7


@pytest.mark.parametrize(
    "flags",
    [
        ["--device", "cpu"],
        ["--dtype", "float32"],
        ["--keep", "10m"],
        ["--no-server"],
        ["--yes"],
        ["--preset", "fast"],
        ["--steps", "4"],
        ["--best-of", "2"],
        ["--t-min", "0.1"],
        ["--record", "/dev/null"],
        ["--slow", "5"],
    ],
)
def test_what_it_cannot_honour_is_refused(dgemma: Run, vllm: FakeVllm, flags: list[str]) -> None:
    found = dgemma("Hi", "--endpoint", vllm.url, *flags)
    assert (found.code, found.out, flags[0].replace("--no-", "--") in found.err) == (2, "", True)
    assert not vllm.asked


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "nonsense"])
def test_an_address_that_is_none(dgemma: Run, url: str) -> None:
    found = dgemma("Hi", "--endpoint", url)
    assert (found.code, found.err.startswith("error: ")) == (2, True)


def test_nobody_there(dgemma: Run) -> None:
    found = dgemma("Hi", "--endpoint", "http://127.0.0.1:9/v1")
    assert (found.code, "cannot be reached" in found.err) == (7, True)


@pytest.fixture(scope="module")
def far() -> Iterator[Running]:
    with running(SCRIPT_STEPS="2", SCRIPT_THINKING="hm", DGEMMA_API_KEY="k") as server:
        yield server


def test_a_server_of_this_program_tells_every_step(dgemma: Run, far: Running, tmp_path: Any) -> None:
    key = {"DGEMMA_API_KEY": "k"}
    film = tmp_path / "film"
    flags = ["--jsonl", "--preset", "fast", "--record", str(film), "--seed", "9"]
    found = dgemma("say: abcdef", "--endpoint", far.root, *flags, variables=key)  # /v1 may be left out
    lines = [json.loads(line) for line in found.out.splitlines()]
    kinds = [line["event"] for line in lines]
    assert kinds == ["start", "prompt", *(["block", "step", "step", "commit"] * 3), "finish"]
    assert (lines[0]["prompt"], lines[0]["model"], lines[-1]["seed"]) == ("say: abcdef", "scripted", 9)
    assert [json.loads(line)["event"] for line in film.read_text().splitlines()] == kinds
    assert dgemma("say: abc", "--endpoint", far.url, "-v", variables=key).err.splitlines()[-1] == f"place   {far.url}"


def test_its_errors_keep_their_exit_codes(dgemma: Run, far: Running) -> None:
    key = {"DGEMMA_API_KEY": "k"}
    for asked, code in (("fail: OutOfMemory", 5), ("fail: ValueError", 7), ("x" * 1901, 2)):
        found = dgemma(asked, "--endpoint", far.url, variables=key)
        assert (found.code, found.out) == (code, "")
        assert found.err.startswith("error: ")
    assert "1,901 tokens" in found.err
