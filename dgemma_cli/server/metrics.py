"""Figures for Prometheus, in its text format (version 0.0.4)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgemma_cli.server.host import Host

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Requests:
    """Answers by path and status."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()

    def count(self, path: str, status: int) -> None:
        self.counts[path, status] += 1


def page(host: Host, requests: Requests) -> str:
    """All figures."""
    return "".join(f"{line}\n" for line in _lines(host, requests))


def _lines(host: Host, requests: Requests) -> Iterator[str]:
    tally, worker = host.worker.tally, host.worker
    yield from _head("dgemma_http_requests_total", "counter", "Answers, by path and status.")
    for (path, status), number in sorted(requests.counts.items()):
        yield f'dgemma_http_requests_total{{path="{path}",status="{status}"}} {number}'
    yield from _head("dgemma_generations_total", "counter", "Replies that ended, by how.")
    for how, number in (("finished", tally.finished), ("cancelled", tally.cancelled), ("failed", tally.failed)):
        yield f'dgemma_generations_total{{end="{how}"}} {number}'
    for name, kind, value, text in (
        ("dgemma_prompt_tokens_total", "counter", tally.prompt_tokens, "Tokens of prompts."),
        ("dgemma_cached_tokens_total", "counter", tally.cached_tokens, "Of those, tokens found in a cache."),
        ("dgemma_kept_tokens_total", "counter", tally.tokens, "Tokens of replies."),
        ("dgemma_steps_total", "counter", tally.steps, "Denoising steps."),
        ("dgemma_step_seconds_total", "counter", tally.step_seconds, "Seconds of all denoising steps."),
        ("dgemma_queue_length", "gauge", worker.queued, "Requests that wait."),
        ("dgemma_active_requests", "gauge", worker.active, "Requests at work."),
        ("dgemma_uptime_seconds", "gauge", time.monotonic() - host.begun, "Seconds since the start."),
        ("dgemma_cache_bytes", "gauge", host.shelf.nbytes, "Bytes of the caches at rest."),
    ):
        yield from _head(name, kind, text)
        yield f"{name} {value}"
    yield from _head("dgemma_memory_bytes", "gauge", "Memory in use.")
    for where, number in host.memory().items():
        yield f'dgemma_memory_bytes{{of="{where}"}} {number}'


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
