"""The state of each position of a canvas, as a person should see it."""

from __future__ import annotations

from enum import Enum

from dgemma_cli.terminal.entries import Step

NOISE_ENTROPY = 1.0  # nats: a position not accepted and less certain than this says nothing yet


class State(Enum):
    """NOISE: no idea yet. DRAFT: a guess, not accepted. ACCEPTED: taken as text by this step.
    SETTLED: accepted in this step and the one before, with the same token.
    """

    NOISE = "noise"
    DRAFT = "draft"
    ACCEPTED = "accepted"
    SETTLED = "settled"


def states(step: Step, before: Step | None) -> list[State]:
    """The state of each position. before: the step before on the same canvas."""
    earlier = before.accepted if before is not None else (False,) * len(step.accepted)
    found = []
    for accepted, was_accepted, changed, entropy in zip(
        step.accepted, earlier, step.changed, step.entropy, strict=True
    ):
        if accepted:
            found.append(State.SETTLED if was_accepted and not changed else State.ACCEPTED)
        else:
            found.append(State.DRAFT if entropy < NOISE_ENTROPY else State.NOISE)
    return found


def shown_length(step: Step, found: list[State]) -> int:
    """How many positions to draw: what follows an end token is no text, once there is some trust in that token."""
    if step.end < len(found) and found[step.end] is not State.NOISE:
        return step.end
    return len(found)


def settled_share(step: Step, found: list[State]) -> float:
    """The share of the positions before the draft's end that are settled, 0 to 1."""
    shown = found[: step.end]
    return sum(state is State.SETTLED for state in shown) / len(shown) if shown else 0.0
