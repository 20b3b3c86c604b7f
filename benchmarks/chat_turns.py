"""How long a turn of a chat takes when the conversation grows: turn 20 against turn 2, on the embedded model.

    python benchmarks/chat_turns.py

Each turn writes one canvas in a fixed number of steps, so that only the conversation's length differs. Prints JSON:
seconds of each turn (median of the repetitions), prompt tokens, and tokens encoded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from dgemma_cli import load
from dgemma_cli.catalog.resolve import resolve
from dgemma_cli.engine.events import BlockCommitted, PromptEncoded
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.model.model import Model
from dgemma_cli.prompting.prompter import Message, Prompter

STEPS, TURNS, WORDS = 8, 20, "What is the capital of France?"


def conversation(model: Model, prompter: Prompter) -> list[tuple[float, int, int]]:
    """Seconds, prompt tokens and encoded tokens of each turn."""
    session = Session(model)
    messages: list[Message] = []
    turns = []
    for _ in range(TURNS):
        messages.append(Message("user", WORDS))
        begun = time.perf_counter()
        ids = prompter.encode(messages)
        written: list[int] = []
        tokens = cached = 0
        for event in session.reply(ids, Options(max_tokens=16, seed=0, steps=STEPS, confidence=1e-9, drafts=False)):
            if isinstance(event, PromptEncoded):
                tokens, cached = event.tokens, event.cached
            elif isinstance(event, BlockCommitted):
                written += event.ids
        turns.append((time.perf_counter() - begun, tokens, tokens - cached))
        messages.append(Message("assistant", prompter.reply(written, ids).answer))
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load("nano", dtype="float32")
    prompter = Prompter.load(resolve("nano").folder)
    conversation(model, prompter)  # warms up
    runs = [conversation(model, prompter) for _ in range(arguments.repetitions)]
    seconds = [statistics.median(run[turn][0] for run in runs) for turn in range(TURNS)]
    found = {
        "threads": arguments.threads,
        "repetitions": arguments.repetitions,
        "steps": STEPS,
        "seconds": [round(value, 4) for value in seconds],
        "prompt_tokens": [tokens for _, tokens, _ in runs[0]],
        "encoded_tokens": [new for _, _, new in runs[0]],
        "turn_20_over_turn_2": round(seconds[19] / seconds[1], 3),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
