"""A server that behaves as vLLM does with a block-diffusion model: a chunk a block, its own error bodies."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeVllm(ThreadingHTTPServer):
    """blocks: (thinking, text) of each. refusal: status and body, not a reply; cut: end in the middle; failure: an
    error told within the stream. key: what requests must bring. asked: the bodies that came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models = ["google/diffusiongemma-26B-A4B-it"]
        self.blocks = [("", "The sky "), ("", "is blue.")]
        self.reason = "stop"
        self.usage: dict[str, Any] | None = {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18}
        self.thinking_field = "reasoning"
        self.refusal: tuple[int, Any] | None = None
        self.cut = False
        self.failure: dict[str, Any] | None = None
        self.key: str | None = None
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeVllm

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if not self._may():
            return
        models = [
            {"id": name, "object": "model", "owned_by": "vllm", "max_model_len": 32768} for name in self.server.models
        ]
        self._send(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._may():
            return
        self.server.asked.append(body)
        if self.server.refusal is not None:
            self._send(*self.server.refusal)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.end_headers()
        self._tell({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        for thinking, text in self.server.blocks:
            delta = {"content": text} if text else {}
            if thinking:
                delta[self.server.thinking_field] = thinking
            self._tell({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        if self.server.failure is not None:
            self._tell(self.server.failure)
        if self.server.cut:
            return
        self._tell({"choices": [{"index": 0, "delta": {}, "finish_reason": self.server.reason}]})
        if self.server.usage is not None:
            self._tell({"choices": [], "usage": self.server.usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _may(self) -> bool:
        if self.server.key is None or self.headers.get("authorization") == f"Bearer {self.server.key}":
            return True
        self._send(401, {"error": "Unauthorized"})
        return False

    def _tell(self, found: dict[str, Any]) -> None:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": self.server.models[0]}
        self.wfile.write(b"data: " + json.dumps(found if "error" in found else head | found).encode() + b"\n\n")
        self.wfile.flush()

    def _send(self, status: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def fake_vllm() -> Iterator[FakeVllm]:
    """One that runs while the block does."""
    server = FakeVllm()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
