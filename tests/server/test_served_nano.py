"""The embedded model behind a server: the same seed gives the same text in process, served, streamed and among others.

The clients are the ones that people use: OpenAI's own, curl, and dgemma's commands.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import openai
import pexpect
import pytest
from running import Running, running

from dgemma_cli.commands import loading
from dgemma_cli.engine.options import Options
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.server.finding import ask
from dgemma_cli.terminal.entries import Commit, Entry, Finish, Prompt, Step
from dgemma_cli.writing import InProcess

NANO = Path(str(files("dgemma_cli"))) / "nano"
QUESTIONS = ["What is the capital of France?", "Sort these words: pear, apple, fig", "Tell me a story about a fox."]

pytestmark = pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="nano is not in this tree")


@pytest.fixture(scope="module")
def here() -> InProcess:
    return InProcess(loading.load_session("nano", "auto", "auto", None))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running("-m", "nano", scripted=False) as found:
        yield found


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", timeout=60, max_retries=0)


def without_times(entries: list[Entry]) -> list[Entry]:
    """Entries but for what a clock says, entropies as they are told (to 0.01 nats)."""
    found: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Step):
            entry = replace(entry, entropy=tuple(round(value, 2) for value in entry.entropy))
        elif isinstance(entry, Prompt):
            entry = replace(entry, seconds=0.0)
        elif isinstance(entry, Finish):
            entry = replace(entry, prefill_seconds=0.0, first_block_seconds=0.0, seconds=0.0, tokens_per_second=0.0)
        found.append(entry)
    return found


@pytest.mark.parametrize(("question", "seed"), [*itertools.product(QUESTIONS[:2], range(3)), (QUESTIONS[2], 1)])
def test_openais_client_gets_the_text_of_this_process(
    here: InProcess, client: openai.OpenAI, question: str, seed: int
) -> None:
    told = list(here.write([Message("user", question)], False, Options(seed=seed, max_tokens=80), 0.0))
    finish = told[-1]
    assert isinstance(finish, Finish)
    asked = {
        "model": "nano",
        "messages": [{"role": "user", "content": question}],
        "seed": seed,
        "max_tokens": 80,
    }
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert whole.choices[0].message.content == finish.text
    assert whole.usage.completion_tokens == finish.tokens
    assert whole.usage.prompt_tokens == finish.prompt_tokens
    assert whole.choices[0].finish_reason == ("stop" if finish.stop_reason == "eos" else "length")
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == finish.text
    assert chunks[-1].usage.completion_tokens == finish.tokens
    blocks = [entry.text for entry in told if isinstance(entry, Commit) and entry.text]
    assert [text for text in texts if text][: len(blocks)] == blocks


def test_openais_client_reads_models_completions_and_errors(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["nano"]
    done = client.completions.create(model="nano", prompt="The capital of", seed=1, max_tokens=8)
    assert done.usage is not None
    assert done.usage.completion_tokens <= 8
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="nano", messages=[{"role": "user", "content": "Hi"}], temperature=0.3)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "Hi"}])
    events = client.chat.completions.create(
        model="nano",
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        extra_body={"dgemma": {"events": True, "preset": "fast"}},
    )
    kinds = [(chunk.model_extra or {}).get("event", {}).get("event") for chunk in events]
    assert {"start", "prompt", "block", "step", "commit", "finish"} <= set(kinds)


def test_thinking_comes_apart(client: openai.OpenAI, here: InProcess) -> None:
    question = [Message("user", "What is 12 + 5?")]
    (finish,) = [e for e in here.write(question, True, Options(seed=2, max_tokens=200), 0.0) if isinstance(e, Finish)]
    body = {"chat_template_kwargs": {"enable_thinking": True}}
    done = client.chat.completions.create(
        model="nano", messages=[{"role": "user", "content": "What is 12 + 5?"}], seed=2, max_tokens=200, extra_body=body
    )
    message = done.choices[0].message
    assert message.content == finish.text
    assert (message.model_extra or {}).get("reasoning_content", "") == finish.thinking


def test_every_step_is_the_same_served_and_in_turns_with_others(here: InProcess, server: Running) -> None:
    """Several requests at once take turns by steps; none of them leaves a trace in another."""
    options = Options(seed=5, max_tokens=80)
    found = ask(server.socket)
    assert found is not None
    served = found.served()

    def remote(question: str) -> list[Entry]:
        return list(served.write([Message("user", question)], False, options, 0.0))

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(remote, QUESTIONS * 2))
    for number, question in enumerate(QUESTIONS):
        own = without_times(list(here.write([Message("user", question)], False, options, 0.0)))
        assert without_times(together[number]) == without_times(together[number + len(QUESTIONS)]) == own


def test_a_conversation_is_the_same_served_whatever_comes_between(here: InProcess, server: Running) -> None:
    found = ask(server.socket)
    assert found is not None
    served = found.served()
    one, other = here.converse(), served.converse()
    messages: list[Message] = []
    for turn, question in enumerate(QUESTIONS):
        messages.append(Message("user", question))
        options = Options(seed=turn, max_tokens=80)
        own, told = (list(talk.reply(messages, False, options)) for talk in (one, other))
        assert without_times(told) == without_times(own)
        assert isinstance(own[0], Prompt)
        assert bool(turn) == bool(own[0].cached)
        assert served.count(messages, False) == here.count(messages, False) == own[0].tokens
        list(served.write([Message("user", question)], False, options, 0.0))
        server.chat(question)  # without a seed it takes up what it finds
        finish = own[-1]
        assert isinstance(finish, Finish)
        messages.append(Message("assistant", finish.text))


def test_a_prompt_that_is_asked_again_is_found_in_a_cache(server: Running) -> None:
    first = server.chat("Sort these words: b, a").json()
    again = server.chat("Sort these words: b, a").json()
    kept = again["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert kept == first["usage"]["prompt_tokens"] - 1
    seeded = server.chat("Sort these words: b, a", seed=1).json()
    assert seeded["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def assert_chatted(variables: dict[str, str], server: Running, question: str, expected: str) -> None:
    """A chat on a terminal of its own says that the server writes, and what."""
    chat = pexpect.spawn(
        sys.executable,
        ["-m", "dgemma_cli", "chat", "-m", "nano", "--seed", "1", "--no-live", "--no-markdown", "--no-save"],
        env={**variables, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        encoding="utf-8",
        timeout=60,
    )
    chat.expect(f"in the server with pid {server.process.pid}")
    chat.expect_exact("\x1b[?2004h")  # the prompt waits
    chat.send(question + "\r")
    chat.expect_exact("2004l" + expected.split("\n")[0])
    chat.close()


def test_everything_works_against_one_server_and_it_stops_cleanly() -> None:
    """`dgemma serve -m nano &`, and then everybody."""
    question, seed = QUESTIONS[0], "1"
    with running("-m", "nano", scripted=False) as server:
        variables = {**os.environ, "DGEMMA_RUNTIME_DIR": str(server.runtime)}

        def dgemma(*arguments: str) -> str:
            command = [sys.executable, "-m", "dgemma_cli", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, env=variables, stdin=subprocess.DEVNULL)
            assert done.returncode == 0, done.stderr
            return done.stdout

        expected = dgemma("run", "-m", "nano", "--no-server", "--seed", seed, question)
        assert dgemma("run", "-m", "nano", "--seed", seed, question) == expected
        assert dgemma("run", "--endpoint", server.url, "--seed", seed, question) == expected
        assert_chatted(variables, server, question, expected)
        bench = ["bench", "--endpoint", server.url, "--concurrency", "2", "--repetitions", "1", "--warmup", "0"]
        (row,) = json.loads(dgemma(*bench, "--max-tokens", "40", "-o", "json"))["rows"]
        assert (row["users"], row["errors"], row["replies"]) == (2, 0, 16)
        assert row["kept_tokens_per_second"]["mean"] > row["kept_tokens_per_second_a_user"]["mean"] > 0
        body = json.dumps({"messages": [{"role": "user", "content": question}], "seed": int(seed)})
        if shutil.which("curl"):
            curl = ["curl", "-sS", f"{server.url}/chat/completions", "-H", "Content-Type: application/json", "-d", body]
            said = json.loads(subprocess.run(curl, capture_output=True, check=True).stdout)
            assert said["choices"][0]["message"]["content"] + "\n" == expected
        client = openai.OpenAI(base_url=server.url, api_key="none")
        made = client.chat.completions.create(
            model="nano", messages=[{"role": "user", "content": question}], seed=int(seed)
        )
        assert (made.choices[0].message.content or "") + "\n" == expected
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(server.chat, QUESTIONS[2], max_tokens=400) for _ in range(8)]
            while not server.metric("dgemma_active_requests"):
                pass
            server.process.send_signal(signal.SIGTERM)
            codes = {answer.result(60).status_code for answer in answers}
        assert codes <= {200, 503}
        assert 200 in codes
        assert server.process.wait(30) == 0
