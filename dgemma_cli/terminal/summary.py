"""What is said about a run when it is over: figures, and what to be careful about."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dgemma_cli.terminal.entries import Commit, Entry, Finish, Start, Step


class Summary:
    """Remembers what there is to say."""

    def __init__(self) -> None:
        self.finish: Finish | None = None
        self.commits: list[Commit] = []
        self.first_draft_seconds: float | None = None
        self._begun = time.perf_counter()

    def show(self, entry: Entry) -> None:
        match entry:
            case Start():
                self._begun = time.perf_counter()
            case Step() if self.first_draft_seconds is None:
                self.first_draft_seconds = time.perf_counter() - self._begun
            case Commit():
                self.commits.append(entry)
            case Finish():
                self.finish = entry

    def close(self) -> None:
        """Nothing is left to write: what there is to say is said by the caller."""


def statistics(finish: Finish, first_draft_seconds: float | None) -> str:
    """One line of figures. Tokens are kept tokens; a step's time has its share of encoding finished blocks. What the
    server of another program does not tell is left out.
    """
    counts = ((finish.tokens, "token"), (finish.blocks, "block"), (finish.steps, "step"))
    parts = [_count(number, noun) for number, noun in counts if number is not None]
    if finish.tokens_per_forward is not None:
        parts.append(f"{finish.tokens_per_forward:.1f} tokens/forward")
    if finish.steps is not None and finish.prefill_seconds is not None:
        parts.append(f"{(finish.seconds - finish.prefill_seconds) / max(1, finish.steps) * 1000:.1f} ms/step")
    if finish.tokens_per_second is not None:
        parts.append(f"{finish.tokens_per_second:,.1f} tokens/s")
    if first_draft_seconds is not None:
        parts.append(f"first draft {first_draft_seconds:.2f} s")
    parts += [f"first block {finish.first_block_seconds:.2f} s", f"total {finish.seconds:.2f} s"]
    if finish.converged is not None:
        parts.append("converged" if finish.converged else "not converged")
    if finish.seed is not None:
        parts.append(f"seed {finish.seed}")
    return ", ".join(parts)


def warnings(finish: Finish, commits: Sequence[Commit]) -> list[str]:
    """What the reader of the answer should know, a line each."""
    found = []
    rough = [commit for commit in commits if commit.converged is False]
    if rough:
        blocks = ", ".join(str(commit.block + 1) for commit in rough)
        noun = "block" if len(rough) == 1 else "blocks"
        steps = max(commit.steps or 0 for commit in rough)
        plural = "" if steps == 1 else "s"
        found.append(f"{noun} {blocks} of {finish.blocks} did not settle within {steps} step{plural}: read with care")
    for commit in commits:
        if commit.trimmed:
            found.append(
                f"block {commit.block + 1} of {finish.blocks} only repeated itself at its end: "
                f"{_count(commit.trimmed, 'token')} cut off (--no-guard keeps them)"
            )
    if not finish.thought_closed:
        found.append(
            "the reply ended within a thought: there may be no answer (see --max-tokens, or leave out --think)"
        )
    elif not finish.text:
        found.append("the answer is empty: another --seed or a longer prompt may help")
    if finish.stop_reason == "length":
        found.append("stopped at --max-tokens" + (f", {finish.tokens:,}" if finish.tokens is not None else ""))
    elif finish.stop_reason == "context":
        found.append("stopped: the context is full")
    elif finish.stop_reason == "repetition":
        found.append("stopped: the text only repeats itself")
    return found


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
