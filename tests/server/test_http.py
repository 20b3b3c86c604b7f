"""The API over HTTP, on a scripted model: shapes, errors, bounds, doors, clients that leave or dawdle."""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import Running, running
from test_request import BODIES, EXAMPLES

from dgemma_cli.terminal.json_lines import SCHEMA

KEY = "a key for tests"
CHAT = "/v1/chat/completions"
SAID = "say: " + "word " * 30


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(SCRIPT_THINKING="hm", SCRIPT_STEPS="2") as found:
        yield found


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    """A server with a key and narrow bounds, and a web page that may call it."""
    bounds = ("--max-body", "1", "--max-prompt", "20", "--max-output", "30", "--queue", "1", "--parallel", "1")
    with running(*bounds, "--cors-origin", "https://page.example", DGEMMA_API_KEY=KEY, SCRIPT_STEP_MS="50") as found:
        yield found


def lines(response: httpx2.Response) -> list[Any]:
    """What a stream told."""
    assert response.headers["content-type"].startswith("text/event-stream")
    found = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    assert found[-1] == "[DONE]"
    return [json.loads(line) for line in found[:-1]]


def error(response: httpx2.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    assert set(found) >= {"message", "type", "param", "code"}
    return found


def test_an_answer_in_one_piece(server: Running) -> None:
    found = server.chat("say: abc", seed=3).json()
    assert found["choices"][0] == {
        "index": 0,
        "finish_reason": "stop",
        "logprobs": None,
        "message": {"role": "assistant", "content": "abc", "reasoning_content": "hm"},
    }
    assert (found["object"], found["model"]) == ("chat.completion", "scripted")
    assert found["usage"]["prompt_tokens"] == 5  # as the script has it
    assert found["usage"]["completion_tokens"] == 3 + 4  # the thought and its two ids
    assert found["usage"]["total_tokens"] == 5 + 7
    assert (found["dgemma"]["seed"], found["dgemma"]["steps"]) == (3, 4)
    assert server.chat("say: abcdefgh", max_tokens=6).json()["choices"][0]["finish_reason"] == "stop"


def test_a_stream_tells_block_after_block(server: Running) -> None:
    found = lines(server.chat("say: abcdefghij", stream=True, stream_options={"include_usage": True}))
    deltas = [chunk["choices"][0]["delta"] for chunk in found if chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    thoughts = [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta]
    texts = [delta["content"] for delta in deltas[1:] if "content" in delta]
    assert ("".join(thoughts), "".join(texts)) == ("hm", "abcdefghij")
    assert len(texts) == 3  # a canvas has four positions, the first of them a thought
    assert [chunk["choices"][0]["finish_reason"] for chunk in found if chunk["choices"]][-1] == "stop"
    assert (found[-1]["choices"], found[-1]["usage"]["completion_tokens"]) == ([], 14)
    assert len({chunk["id"] for chunk in found}) == 1
    assert not any("event" in chunk for chunk in found)


def test_every_step_comes_as_an_event_when_it_is_asked_for(server: Running) -> None:
    found = lines(server.chat("say: abcdefghij", stream=True, dgemma={"events": True}))
    events = [chunk["event"] for chunk in found if "event" in chunk]
    kinds = [event["event"] for event in events]
    assert kinds == ["start", "prompt", *(["block", "step", "step", "commit"] * 4), "finish"]
    assert events[0]["schema"] == SCHEMA
    assert all(chunk["choices"] == [] for chunk in found if "event" in chunk)
    assert "".join(event["text"] for event in events if event["event"] == "commit") == "abcdefghij"


def test_completions(server: Running) -> None:
    def complete(**body: Any) -> httpx2.Response:
        return httpx2.post(f"{server.url}/completions", json=body)

    found = complete(prompt="say: abc").json()
    assert (found["object"], found["choices"][0]["text"]) == ("text_completion", "abc")
    assert complete(prompt=[ord(c) for c in "say: abc"]).json()["choices"] == found["choices"]
    chunks = lines(complete(prompt="say: abcdefgh", stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "abcdefgh"


def test_models_health_and_lengths(server: Running) -> None:
    (model,) = httpx2.get(f"{server.url}/models").json()["data"]
    assert (model["id"], model["owned_by"], model["max_model_len"]) == ("scripted", "dgemma", 4000)
    assert httpx2.get(f"{server.url}/models/scripted").json()["id"] == "scripted"
    assert httpx2.get(f"{server.root}/health").json() == {"status": "ok"}
    body = {"messages": [{"role": "user", "content": "x" * 1950}]}
    assert httpx2.post(f"{server.root}/tokenize", json=body).json()["count"] == 1950
    for name in ("other", "a/b", "%ff%ed", "x" * 500):
        response = httpx2.get(f"{server.url}/models/{name}")
        assert (response.status_code, error(response)["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/chat/completions", {"temperature": 1}, 400, "unsupported_parameter"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x" * 1901}]},
            400,
            "context_length_exceeded",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "model": "gpt"},
            404,
            "model_not_found",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "dgemma": {"t_min": 2, "t_max": 1}},
            400,
            "invalid_value",
        ),
        ("/v1/completions", {}, 400, "invalid_value"),
        ("/v1/embeddings", {}, 404, "not_found"),
        ("/v1/models", {}, 405, "not_found"),
    ],
)
def test_errors_have_a_status_a_code_and_words(
    server: Running, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    response = httpx2.post(server.root + path, json=body)
    assert (response.status_code, error(response)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("MemoryError", 503, "out_of_memory"), ("ValueError", 500, "failed"), ("CheckpointError", 500, "failed")],
)
def test_a_model_that_fails_is_told_in_either_form(server: Running, name: str, status: int, code: str) -> None:
    response = server.chat(f"fail: {name}")
    assert (response.status_code, error(response)["code"]) == (status, code)
    streamed = server.chat(f"fail: {name}", stream=True)
    assert streamed.status_code == 200
    last = [line for line in streamed.text.split("\n") if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    assert server.chat("hello").status_code == 200


def test_a_body_must_be_json_and_say_so(server: Running) -> None:
    url = f"{server.url}/chat/completions"
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert httpx2.post(url, content=b"{}", headers={"content-type": kind}).status_code == 415
    assert (
        httpx2.post(url, content=b"{", headers={"content-type": "application/json; charset=utf-8"}).status_code == 400
    )


def test_another_name_for_this_machine_is_not_answered(server: Running) -> None:
    """So that no web page reaches it by making a name of its own point here."""
    for name, status in (("localhost", 200), ("127.0.0.1:1", 200), ("evil.example", 421), ("[::1]:80", 200), ("", 421)):
        assert httpx2.get(f"{server.root}/health", headers={"host": name}).status_code == status
    assert "access-control-allow-origin" not in httpx2.get(
        f"{server.root}/health", headers={"origin": "https://page.example"}
    ).headers  # fmt: skip


def test_what_is_its_users_alone(server: Running) -> None:
    assert httpx2.get(f"{server.root}/dgemma/server").status_code == 404
    assert httpx2.post(f"{server.root}/dgemma/stop").status_code == 404
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.runtime.stat().st_mode) == 0o700
    state = server.state()
    assert (state["name"], state["pid"], state["addresses"]) == ("scripted", server.process.pid, [server.url])


def test_a_client_that_leaves_ends_its_generation(server: Running) -> None:
    for stream in (True, False):
        body = json.dumps({"messages": [{"role": "user", "content": SAID * 12}], "stream": stream}).encode()
        with running(SCRIPT_STEP_MS="50") as slow:
            before = slow.metric('dgemma_generations_total{end="cancelled"}')
            where = ("127.0.0.1", int(slow.root.rpartition(":")[2]))
            with socket.create_connection(where) as client:
                client.sendall(
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    + f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                while not slow.metric("dgemma_steps_total"):
                    time.sleep(0.02)
            while slow.metric('dgemma_generations_total{end="cancelled"}') == before:
                time.sleep(0.02)
            steps = slow.metric("dgemma_steps_total")
            time.sleep(0.2)
            assert slow.metric("dgemma_steps_total") == steps
            assert slow.metric("dgemma_active_requests") == 0


def test_the_key_the_bounds_and_the_page(locked: Running) -> None:
    own = {"authorization": f"Bearer {KEY}"}
    body = {"messages": [{"role": "user", "content": "hello"}]}
    url = f"{locked.url}/chat/completions"
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}):
        response = httpx2.post(url, json=body, headers=headers)
        assert (response.status_code, error(response)["code"]) == (401, "invalid_api_key")
    assert httpx2.get(f"{locked.root}/metrics").status_code == 401
    assert httpx2.get(f"{locked.root}/health").status_code == 200
    assert httpx2.post(url, json=body, headers=own).status_code == 200
    assert httpx2.post(url, json={**body, "max_tokens": 31}, headers=own).status_code == 400
    long = {"messages": [{"role": "user", "content": "x" * 21}]}
    assert error(httpx2.post(url, json=long, headers=own))["code"] == "context_length_exceeded"
    big = {"messages": [{"role": "user", "content": "x" * 1_000_001}]}
    assert httpx2.post(url, json=big, headers=own).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(2000):
            yield b" " * 1000

    response = httpx2.post(url, content=chunks(), headers={**own, "content-type": "application/json"})
    assert response.status_code == 413
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    assert httpx2.options(url, headers=asked).headers["access-control-allow-origin"] == "https://page.example"
    assert httpx2.options(url, headers={**asked, "origin": "https://other.example"}).status_code == 400


def test_a_full_queue_is_told_at_once(locked: Running) -> None:
    own = {"authorization": f"Bearer {KEY}"}

    def ask(text: str) -> httpx2.Response:
        body = {"messages": [{"role": "user", "content": text}]}
        return httpx2.post(f"{locked.url}/chat/completions", json=body, headers=own, timeout=60)

    def wait(name: str) -> None:
        while f"\n{name} 1\n" not in httpx2.get(f"{locked.root}/metrics", headers=own).text:
            time.sleep(0.01)

    with ThreadPoolExecutor(2) as pool:
        at_work = pool.submit(ask, "say: abcdefghijklmno")
        wait("dgemma_active_requests")
        waiting = pool.submit(ask, "say: abcd")
        wait("dgemma_queue_length")
        refused = ask("say: more")
        assert (refused.status_code, error(refused)["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")
        assert at_work.result().status_code == waiting.result().status_code == 200


def test_a_server_that_is_idle_for_long_enough_ends() -> None:
    with running("--keep", "1s") as server:
        assert server.state()["keep"] == 1.0
        assert server.process.wait(30) == 0
        assert not server.socket.exists()


@settings(max_examples=EXAMPLES // 10, deadline=None)
@given(body=BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=50))
def test_whatever_body_comes_it_is_answered(server: Running, body: bytes) -> None:
    response = httpx2.post(
        f"{server.url}/chat/completions", content=body, headers={"content-type": "application/json"}, timeout=30
    )
    assert response.status_code in (200, 400, 404)
    assert server.process.poll() is None


@pytest.mark.parametrize(
    "sent", [b"\r\n\r\n", b"GET", b"\x16\x03\x01\x00", b"POST /v1/chat/completions HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_hurts_nobody(server: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(server.root.rpartition(":")[2])), timeout=5) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        client.recv(1000)
    assert server.chat("hello").status_code == 200
