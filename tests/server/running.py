"""Servers as processes, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

SCRIPTED = str(Path(__file__).parent / "scripted_server.py")


@dataclass
class Running:
    """A server that takes requests. url: with /v1; runtime: the folder of its socket."""

    process: subprocess.Popen[bytes]
    url: str
    runtime: Path

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    @property
    def socket(self) -> Path:
        return self.runtime / f"{self.process.pid}.sock"

    def chat(self, text: str, timeout: float = 30, **more: Any) -> httpx2.Response:
        """One question."""
        body = {"messages": [{"role": "user", "content": text}], **more}
        return httpx2.post(f"{self.url}/chat/completions", json=body, timeout=timeout)

    def metric(self, name: str) -> float:
        """A figure of /metrics."""
        lines = httpx2.get(f"{self.root}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{")))

    def state(self) -> dict[str, Any]:
        """What it says of itself over its socket."""
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(self.socket))) as client:
            found: dict[str, Any] = client.get("http://dgemma/dgemma/server").json()
            return found


@contextmanager
def running(*arguments: str, scripted: bool = True, **variables: str) -> Iterator[Running]:
    """A server on a free port while the block runs."""
    command = [sys.executable, *([SCRIPTED] if scripted else ["-m", "dgemma_cli"]), "serve", "--port", "0", *arguments]
    with tempfile.TemporaryDirectory(prefix="dg-") as runtime:
        environment = {**os.environ, "DGEMMA_RUNTIME_DIR": runtime, **variables}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        try:
            assert process.stderr is not None
            line = process.stderr.readline().decode()
            assert "http://" in line, line + process.stderr.read().decode()
            yield Running(process, line.split()[-1], Path(runtime))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
            assert process.stderr is not None
            process.stderr.close()
