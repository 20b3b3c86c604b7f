"""Users of a server, on a clock of our own: what each gets, what all get, and what went wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "server"))
from fake_vllm import fake_vllm

from dgemma_cli.bench.prompts import Prompt
from dgemma_cli.bench.users import Reply, Round, as_markdown, one_round, row
from dgemma_cli.commands.bench_endpoint import parse_users
from dgemma_cli.errors import NetworkError, UsageError
from dgemma_cli.terminal.entries import Commit, Entry, Finish

FINISH = Finish("ab", "", "", True, 3, 10, None, None, None, None, None, None, 0.0, 1.0, None, "eos", None)
PROMPTS = [Prompt(name, "chat") for name in "abc"]


def writer(told: list[str], tokens: int | None = 10, error: str = "") -> Callable[[Prompt], Iterator[Entry]]:
    def write(prompt: Prompt) -> Iterator[Entry]:
        told.append(prompt.name)
        yield Commit(0, "a", "", None, None, None, None)
        if error:
            raise NetworkError(error)
        yield replace(FINISH, tokens=tokens)

    return write


def test_each_user_asks_everything_beginning_with_another() -> None:
    told: list[list[str]] = [[] for _ in range(4)]
    found = one_round([writer(each) for each in told], PROMPTS)
    assert told == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]
    assert [len(user) for user in found.users] == [3] * 4
    assert {reply.tokens for reply in found.replies} == {10}


def round_of(*seconds: float, error: str | None = None) -> Round:
    """A user for each number, with two replies of 10 tokens that took so long."""
    users = tuple((Reply("a", 10, one / 2, one), Reply("b", 10, one / 2, one, error)) for one in seconds)
    return Round(users, 2 * max(seconds))


def test_the_figures() -> None:
    found = row(2, [round_of(1.0, 2.0), round_of(2.0, 2.0)])
    assert found["kept_tokens_per_second_a_user"]["mean"] == pytest.approx(((10 + 5) / 2 + 5) / 2)
    assert found["kept_tokens_per_second"]["mean"] == pytest.approx(40 / 4)
    assert found["first_block_ms"]["mean"] == pytest.approx((750 + 1000) / 2)
    assert (found["replies"], found["errors"], found["tokens"]) == (8, 0, 80)
    assert found["first_block_ms_p95"] == 1000


def test_what_failed_is_counted_and_counts_for_nothing() -> None:
    found = row(1, [round_of(1.0, error="No.")])
    assert (found["replies"], found["errors"], found["error_messages"]) == (1, 1, {"No.": 1})
    assert found["kept_tokens_per_second_a_user"]["mean"] == 10
    nothing = row(1, [one_round([writer([], error="gone")], PROMPTS)])
    assert (nothing["replies"], nothing["first_block_ms"], nothing["first_block_ms_p95"]) == (0, None, None)
    untold = row(1, [one_round([writer([], tokens=None)], PROMPTS)])
    assert (untold["tokens"], untold["kept_tokens_per_second"]) == (None, None)
    document = {"model": "m", "endpoint": "u", "time": "t", "rows": [nothing, untold], "notes": ["n"]}
    document["plan"] = {"prompts": [], "rounds": 1, "max_tokens": 1}
    assert "not told" in as_markdown(document)


def test_numbers_of_users() -> None:
    assert parse_users("1, 4,16,4") == (1, 4, 16)
    for text in ("", "0", "x", "1,,2", "-1", "1025"):
        with pytest.raises(UsageError):
            parse_users(text)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dgemma_cli", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


def test_a_report_of_another_programs_server() -> None:
    with fake_vllm() as server:
        asked = ["--endpoint", server.url, "--concurrency", "1,3", "--repetitions", "2", "--warmup", "0"]
        found = json.loads(bench(*asked, "-o", "json").stdout)
        assert [each["users"] for each in found["rows"]] == [1, 3]
        assert [each["errors"] for each in found["rows"]] == [0, 0]
        assert not any("seed" in body or "dgemma" in body for body in server.asked)
        prompts = len(found["plan"]["prompts"])
        assert found["rows"][1]["tokens"] == 2 * 3 * prompts * 6
        server.refusal = (503, {"error": {"message": "busy", "code": 503}})
        done = bench(*asked)
        assert (done.returncode, "busy" in done.stderr, "| 3 |" in done.stdout) == (1, True, True)
        for flag in (["--profile"], ["--device", "cpu"], ["--presets", "fast"], ["--quality"]):
            done = bench("--endpoint", server.url, *flag)
            assert (done.returncode, flag[0] in done.stderr) == (2, True)
    assert bench("--concurrency", "2").returncode == 2
