"""What a warm model saves, and how a server bears up: nano, on this machine, over the loopback.

    python benchmarks/server.py warm      # from the start of the process to the first draft: warm against cold
    python benchmarks/server.py memory    # 1,000 requests, and the server's memory before and after
    python benchmarks/server.py bodies    # 10,000 malformed bodies
    python benchmarks/server.py sharing   # one pass for several replies, against a pass for each

Prints JSON. "warm" alternates the two, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

QUESTION = "What is the capital of France?"
COMMAND = [sys.executable, "-m", "dgemma_cli"]


@contextmanager
def server(*arguments: str) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Address, pid, and the environment in which commands find it."""
    with tempfile.TemporaryDirectory(prefix="dg-") as runtime:
        variables = {**os.environ, "DGEMMA_RUNTIME_DIR": runtime}
        process = subprocess.Popen(
            [*COMMAND, "serve", "-m", "nano", "--port", "0", *arguments], stderr=subprocess.PIPE, env=variables
        )
        assert process.stderr is not None
        yield process.stderr.readline().decode().split()[-1], process.pid, variables
        process.terminate()
        process.wait()


def first_draft(variables: dict[str, str], *flags: str) -> tuple[float, float]:
    """Seconds from the start of ``dgemma run`` to its first draft, and CPU seconds of the whole command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, "run", "-m", "nano", "--jsonl", "--seed", "1", *flags, QUESTION],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=variables,
    )
    assert process.stdout is not None
    found = next(time.perf_counter() - begun for line in process.stdout if b'"event":"step"' in line)
    process.stdout.read()
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def warm(repetitions: int) -> dict[str, Any]:
    """Cold and warm, one after the other."""
    cold_runs, warm_runs = [], []
    with server() as (_, _, variables):
        for _ in range(repetitions + 1):
            cold_runs.append(first_draft(variables, "--no-server"))
            warm_runs.append(first_draft(variables))
    cold, hot = ([run[0] for run in runs[1:]] for runs in (cold_runs, warm_runs))  # the first of each fills the caches
    return {
        "cold_seconds": round(statistics.median(cold), 3),
        "warm_seconds": round(statistics.median(hot), 3),
        "warm_over_cold": round(statistics.median(h / c for h, c in zip(hot, cold, strict=True)), 3),
        "cold_cpu_seconds": round(statistics.median(run[1] for run in cold_runs[1:]), 3),
        "warm_cpu_seconds": round(statistics.median(run[1] for run in warm_runs[1:]), 3),
        "repetitions": repetitions,
    }


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def memory(requests: int) -> dict[str, Any]:
    """Different questions, streamed and not, with a seed and without. Half as many come before the count begins: until
    the caches of recent prompts are full and the allocator has met every size, memory grows by design.
    """
    words = ["apple", "pear", "fig", "plum", "lemon", "peach", "grape", "melon"]
    draw = random.Random(1)
    with server("--cache", "0.1") as (url, pid, _), httpx2.Client(timeout=120) as http:

        def ask(count: int) -> None:
            for number in range(count):
                text = f"Sort these words: {', '.join(draw.sample(words, 5))}"
                body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "stream": bool(number % 2)}
                body |= {"seed": number} if number % 3 else {}
                http.post(f"{url}/chat/completions", json=body).raise_for_status()

        ask(requests // 2)
        before = resident(pid)
        ask(requests)
        after = resident(pid)
    return {"requests": requests, "before": before, "after": after, "growth": round(after / before - 1, 4)}


def bodies(count: int) -> dict[str, Any]:
    """Bodies broken in every place, and good ones in between. Every one must be answered."""
    draw = random.Random(1)
    good = json.dumps(
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "dgemma": {"steps": 1}}
    ).encode()
    statuses: dict[int, int] = {}
    with server("--cache", "0.1") as (url, pid, _), httpx2.Client(timeout=120) as http:
        before = 0
        for number in range(count):
            body = bytearray(good)
            for _ in range(draw.randrange(1, 6)):
                place = draw.randrange(len(body) + 1)
                match draw.randrange(3):
                    case 0:
                        body[place : place + draw.randrange(4)] = draw.randbytes(draw.randrange(3))
                    case 1:
                        body[place:place] = draw.choice([b'"', b"{", b"[", b"}", b"null", b"1e999", b"\\ud800", b"-"])
                    case _:
                        del body[place : place + draw.randrange(20)]
            response = http.post(
                f"{url}/chat/completions", content=bytes(body), headers={"content-type": "application/json"}
            )
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            if number == count // 10:
                before = resident(pid)
        growth = round(resident(pid) / before - 1, 4)
        alive = http.get(f"{url.removesuffix('/v1')}/health").status_code == 200
    return {"bodies": count, "statuses": dict(sorted(statuses.items())), "growth": growth, "alive": alive}


def sharing(repetitions: int) -> dict[str, Any]:
    """CPU time of one pass over the canvases of several replies, by that of a pass for each of them."""
    import torch

    from dgemma_cli import load

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        model = load("nano", dtype=dtype)
        draw = torch.Generator().manual_seed(1)
        vocabulary, length, hidden = model.config.vocab_size, model.config.canvas_length, model.config.hidden_size
        caches = []
        for number in range(8):
            caches.append(model.new_cache())
            model.encode(torch.randint(vocabulary, (20 + 7 * number,), generator=draw), caches[-1])
        for many in (2, 4, 8):
            canvases = torch.randint(vocabulary, (many, length), generator=draw)
            softs = torch.randn(many, length, hidden, generator=draw).to(model.dtype)
            ratios = []
            for _ in range(repetitions):
                begun = time.process_time()
                alone = torch.cat(
                    [model.denoise(canvases[n : n + 1], caches[n], softs[n : n + 1]) for n in range(many)]
                )
                middle = time.process_time()
                together = model.denoise_apart(canvases, caches[:many], softs)
                ratios.append((time.process_time() - middle) / (middle - begun))
            apart = float((alone - together).abs().max())
            found[f"{dtype}, {many} canvases"] = {"together_over_alone": round(statistics.median(ratios), 3)} | {
                "largest_difference_of_logits": apart
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {"warm": (warm, 9), "memory": (memory, 1000), "bodies": (bodies, 10_000), "sharing": (sharing, 15)}
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--count", type=int, metavar="N")
    arguments = parser.parse_args()
    measure, count = kinds[arguments.kind]
    print(json.dumps(measure(arguments.count or count), indent=2))


if __name__ == "__main__":
    main()
