"""Many clients, slow ones, an end in the middle: nobody is lost, nobody waits for somebody else's laziness."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from running import Running, running
from starlette.requests import ClientDisconnect

from dgemma_cli.server.app import _Stream

CLIENTS, EACH = 64, 3


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running("--parallel", "4", SCRIPT_STEPS="2") as found:
        yield found


def test_64_clients_at_once_none_lost_and_fair(server: Running) -> None:
    ready = threading.Barrier(CLIENTS)

    def client(number: int) -> tuple[list[str], float]:
        """Asks one thing after the other. Returns what came, and how long all of it took."""
        with httpx2.Client(timeout=60) as http:
            ready.wait()
            begun = time.perf_counter()
            said = []
            for turn in range(EACH):
                body = {"messages": [{"role": "user", "content": f"say: {number}.{turn}"}], "stream": bool(turn % 2)}
                response = http.post(f"{server.url}/chat/completions", json=body)
                assert response.status_code == 200
                said.append(_text(response))
            return said, time.perf_counter() - begun

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = list(pool.map(client, range(CLIENTS)))
    assert [said for said, _ in found] == [[f"{n}.{turn}" for turn in range(EACH)] for n in range(CLIENTS)]
    times = [seconds for _, seconds in found]
    assert max(times) <= 2 * min(times)


def _text(response: httpx2.Response) -> str:
    if response.headers["content-type"] == "application/json":
        found: str = response.json()["choices"][0]["message"]["content"]
        return found
    chunks = [json.loads(line[6:]) for line in response.text.split("\n") if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])


def test_memory_does_not_grow_with_requests(server: Running) -> None:
    """Two in a hundred over 1,000 are allowed (benchmarks/server_memory.py); fewer show what leaks."""

    def memory() -> int:
        return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])

    with httpx2.Client(timeout=60) as http:

        def ask(count: int) -> None:
            for number in range(count):
                body = {"messages": [{"role": "user", "content": f"say: {'word ' * 20}"}], "stream": bool(number % 2)}
                http.post(f"{server.url}/chat/completions", json=body).raise_for_status()

        ask(150)
        before = memory()
        ask(300)
    assert memory() <= 1.02 * before


def test_who_reads_slowly_gets_everything_and_holds_nobody_up(server: Running) -> None:
    text = "word " * 360
    body = {"messages": [{"role": "user", "content": f"say: {text}"}], "stream": True, "dgemma": {"events": True}}
    data = json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX) as slow:  # whose buffers do not grow
        slow.connect(str(server.socket))
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        deadline = time.monotonic() + 20
        steps = -1.0
        while (now := server.metric("dgemma_steps_total")) != steps:  # until it is paused
            assert time.monotonic() < deadline
            steps = now
            time.sleep(0.1)
        assert server.metric("dgemma_active_requests") == 1
        assert server.chat("say: quick").json()["choices"][0]["message"]["content"] == "quick"
        assert server.metric("dgemma_active_requests") == 1
        received = b""
        while part := slow.recv(65536):
            received += part
    events = [json.loads(line[6:])["event"] for line in received.split(b"\n") if b'"event": {' in line]
    assert "".join(event["text"] for event in events if event["event"] == "commit") == text.rstrip()
    assert b"data: [DONE]" in received


def test_who_takes_nothing_at_all_is_let_go() -> None:
    class Lazy:
        left = False

        async def __aenter__(self) -> Lazy:
            return self

        async def __aexit__(self, *_: object) -> None:
            self.left = True

        async def entries(self) -> Any:
            return
            yield

    class Reply:
        def opening(self) -> list[bytes]:
            return [b"data: {}\n\n"]

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async def receive() -> Any:
        await asyncio.sleep(60)

    lazy = Lazy()
    stream = _Stream(lazy, Reply(), 0.05)  # type: ignore[arg-type]
    with pytest.raises(ClientDisconnect):
        asyncio.run(stream({"type": "http"}, receive, send))
    assert lazy.left


@pytest.mark.parametrize("stream", [False, True])
def test_sigterm_answers_who_is_at_work_and_refuses_the_others(stream: bool) -> None:
    with running("--parallel", "1", SCRIPT_STEP_MS="60") as server, ThreadPoolExecutor(2) as pool:
        at_work = pool.submit(server.chat, "say: abcdefghijkl", stream=stream)
        while server.metric("dgemma_active_requests") < 1:
            time.sleep(0.01)
        waiting = pool.submit(server.chat, "say: never", stream=stream)
        while server.metric("dgemma_queue_length") < 1:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        refused = waiting.result(10)
        late = server.chat("say: late")
        assert (late.status_code, late.json()["error"]["code"]) == (503, "stopping")
        assert httpx2.get(f"{server.root}/health").status_code == 503
        assert not server.socket.exists()
        answered = at_work.result(20)
        assert (answered.status_code, _text(answered)) == (200, "abcdefghijkl")
        assert '"stopping"' in refused.text
        assert refused.status_code == (200 if stream else 503)
        assert server.process.wait(10) == 0
        assert server.process.stderr is not None
        assert b"Traceback" not in server.process.stderr.read()


def test_a_second_signal_ends_it_at_once() -> None:
    with running(SCRIPT_STEP_MS="200") as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.chat, "say: " + "word " * 50)
        while server.metric("dgemma_active_requests") < 1:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        server.process.wait(5)
        found = asked.exception(5) or asked.result().status_code
        assert found == 503 or isinstance(found, httpx2.TransportError)
