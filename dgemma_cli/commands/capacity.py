"""How much a server does at a time: what was asked for, else as much of the usual as there is memory for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dgemma_cli.commands.memory_report import Report
from dgemma_cli.commands.serve import AT_REST, REPLIES
from dgemma_cli.memory import Work
from dgemma_cli.units import size

MOST_CANVASES = 16  # that a request may ask for side by side


@dataclass(frozen=True, slots=True)
class Capacity:
    """replies: at work at a time; at_rest: bytes for the caches of recent prompts; reserved: bytes of each reply's
    cache, which caches at rest may have while no reply needs them; canvases: of a request side by side; lowered: less
    than the usual, for want of memory.
    """

    replies: int
    at_rest: int
    reserved: int
    canvases: int
    lowered: bool = False

    def __str__(self) -> str:
        """In words."""
        replies = f"{self.replies} replies" if self.replies > 1 else "one reply"
        return f"{replies} at a time and {size(self.at_rest)} for caches of recent prompts"


def work_of(replies: int | None, at_rest: int | None) -> Work:
    """What there must be memory for: what was asked for, None for the usual, of which nothing must."""
    return Work(replies=replies or 1, at_rest=at_rest or 0, goes_on=True, plain=True)  # plain: requests may ask for it


def capacity(report: Report | None, replies: int | None, at_rest: int | None) -> Capacity:
    """``work_of`` the same, and what else there is memory for. report: None where memory was not looked at."""
    if report is None:
        return Capacity(replies or REPLIES, AT_REST if at_rest is None else at_rest, 0, MOST_CANVASES)
    work, reserved = work_of(replies, at_rest), 0
    if replies is None:
        work = replace(work, replies=report.most(REPLIES, lambda n: replace(work, replies=n)))
    if at_rest is None:
        reserved = report.needs(replace(work, replies=1)).cache
        work = replace(work, at_rest=min(AT_REST, max(0, report.spare(work))))
    canvases = report.most(MOST_CANVASES, lambda n: replace(work, canvases=n))
    lowered = (replies is None and work.replies < REPLIES) or (at_rest is None and work.at_rest < AT_REST)
    return Capacity(work.replies, work.at_rest, reserved, canvases, lowered)
