"""Many users of one server at once: what each of them gets, and all together. What a figure means: docs/bench.md.

Each user asks one prompt after the other and waits for the whole reply, as people do. All begin together.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from dgemma_cli.bench.prompts import Prompt
from dgemma_cli.bench.statistics import Spread
from dgemma_cli.errors import DgemmaError
from dgemma_cli.terminal.entries import Commit, Entry, Finish

Write = Callable[[Prompt], Iterator[Entry]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request. tokens: kept ones, as the server counts them; None if it does not. first_block_seconds:
    until the first text; error: what went wrong, if anything did.
    """

    prompt: str
    tokens: int | None
    first_block_seconds: float
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """The replies of each user, and the seconds until the last of them was done."""

    users: tuple[tuple[Reply, ...], ...]
    seconds: float

    @property
    def replies(self) -> list[Reply]:
        return [reply for user in self.users for reply in user]


def one_round(writers: Sequence[Write], prompts: Sequence[Prompt], clock: Clock = time.perf_counter) -> Round:
    """All users, each with a writer of its own, ask all prompts; each begins with another, so that the same are not
    asked at the same time.
    """
    together = threading.Barrier(len(writers) + 1)

    def user(number: int) -> tuple[Reply, ...]:
        first = number % len(prompts)
        together.wait()
        return tuple(_ask(writers[number], prompt, clock) for prompt in [*prompts[first:], *prompts[:first]])

    with ThreadPoolExecutor(len(writers)) as pool:
        asked = [pool.submit(user, number) for number in range(len(writers))]
        together.wait()
        begun = clock()
        found = tuple(each.result() for each in asked)
        return Round(found, clock() - begun)


def _ask(write: Write, prompt: Prompt, clock: Clock) -> Reply:
    begun = clock()
    first = 0.0
    tokens: int | None = None
    try:
        for entry in write(prompt):
            if isinstance(entry, Commit):
                first = first or clock() - begun
            elif isinstance(entry, Finish):
                tokens = entry.tokens
    except DgemmaError as error:
        return Reply(prompt.name, None, first, clock() - begun, error.message)
    return Reply(prompt.name, tokens, first, clock() - begun)


def row(users: int, rounds: Sequence[Round]) -> dict[str, Any]:
    """The figures of so many users. A spread is over the rounds; of a round it is the mean of its users or replies."""
    replies = [reply for each in rounds for reply in each.replies]
    good = [reply for reply in replies if reply.error is None]
    counted = bool(good) and all(reply.tokens is not None for reply in good)
    firsts = sorted(reply.first_block_seconds for reply in good)
    errors = Counter(reply.error for reply in replies if reply.error is not None)
    return {
        "users": users,
        "replies": len(good),
        "errors": sum(errors.values()),
        "error_messages": dict(errors.most_common(5)),
        "tokens": sum(reply.tokens or 0 for reply in good) if counted else None,
        "kept_tokens_per_second_a_user": _spread(rounds, _a_user) if counted else None,
        "kept_tokens_per_second": _spread(rounds, _in_all) if counted else None,
        "first_block_ms": _spread(rounds, _first_block),
        "first_block_ms_p95": 1000 * firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))] if firsts else None,
        "seconds": [each.seconds for each in rounds],
        "samples": [asdict(reply) for reply in replies],
    }


def _spread(rounds: Sequence[Round], figure: Callable[[Round], float | None]) -> dict[str, Any] | None:
    values = [value for value in map(figure, rounds) if value is not None]
    return asdict(Spread.of(values)) if values else None


def _a_user(each: Round) -> float | None:
    """The mean over the users of the tokens each got, by the time its replies took."""
    rates = []
    for user in each.users:
        good = [reply for reply in user if reply.error is None]
        if good:
            rates.append(sum(reply.tokens or 0 for reply in good) / sum(reply.seconds for reply in good))
    return sum(rates) / len(rates) if rates else None


def _in_all(each: Round) -> float:
    return sum(reply.tokens or 0 for reply in each.replies) / each.seconds


def _first_block(each: Round) -> float | None:
    good = [reply.first_block_seconds for reply in each.replies if reply.error is None]
    return 1000 * sum(good) / len(good) if good else None


def as_markdown(document: dict[str, Any]) -> str:
    """For people."""
    plan = document["plan"]
    head = (
        f"# {document['model']} at {document['endpoint']}\n\n"
        f"{document['time']}, {len(plan['prompts'])} prompts a user, {plan['rounds']} rounds, "
        f"{plan['max_tokens']} tokens a reply at the most\n\n"
    )
    table = "| users | kept tokens/s a user | in all | first block, ms | p95 | replies | errors |\n"
    table += "|---|---|---|---|---|---|---|\n"
    for each in document["rows"]:
        spreads = (each["kept_tokens_per_second_a_user"], each["kept_tokens_per_second"], each["first_block_ms"])
        p95 = each["first_block_ms_p95"]
        values = [each["users"], *map(_written, spreads), "" if p95 is None else f"{p95:.0f}"]
        table += f"| {' | '.join(map(str, [*values, each['replies'], each['errors']]))} |\n"
    notes = "".join(f"- {note}\n" for note in document["notes"])
    return head + table + (f"\n{notes}" if notes else "")


def _written(spread: dict[str, Any] | None) -> str:
    return "not told" if spread is None else f"{spread['mean']:,.1f} ± {spread['sd']:,.1f}"
