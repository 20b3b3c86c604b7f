"""What comes before what: whether one stream, or the host, may touch memory that another one touched.

Each of them is a timeline with a vector clock. It knows of an access where its clock has come as far as the access's
own timeline had: by being the same, or by having waited for it, directly or by way of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import NamedTuple

Clock = dict[int, int]
_NUMBERS = count()


class Race(AssertionError):
    """Memory is touched while somebody else may be at it."""


class Timeline:
    """Something that does one thing after another."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = next(_NUMBERS)
        self.clock: Clock = {self.number: 0}

    def copy(self) -> Timeline:
        """Another one that knows the same."""
        twin = Timeline(self.name)
        twin.clock.update(self.clock)
        return twin

    def tick(self) -> None:
        """One thing more is done."""
        self.clock[self.number] += 1

    def join(self, clock: Mapping[int, int]) -> None:
        """All that ``clock`` knows of comes before what is done next."""
        for number, time in clock.items():
            self.clock[number] = max(time, self.clock.get(number, 0))

    def knows(self, clock: Mapping[int, int]) -> bool:
        """Whether all that ``clock`` knows of has come before."""
        return all(self.clock.get(number, 0) >= time for number, time in clock.items())


class _Access(NamedTuple):
    first: int
    last: int
    clock: Clock  # of the one timeline, at that time
    writes: bool
    told: str


class Accesses:
    """Who touched which bytes, as far as it still matters."""

    def __init__(self) -> None:
        self._of: dict[int, list[_Access]] = {}

    def touch(self, timeline: Timeline, storage: int, first: int, last: int, writes: bool, what: str) -> None:
        """Bytes from ``first`` to before ``last`` of a storage. Raises Race where another's access is not known to be
        over, unless both only read.
        """
        kept = []
        for each in self._of.get(storage, []):
            apart = each.last <= first or last <= each.first
            if not apart:
                if (writes or each.writes) and not timeline.knows(each.clock):
                    raise Race(f"{what} on {timeline.name} does not wait for {each.told}")
                inside = first <= each.first and each.last <= last
                if inside and (writes or (not each.writes and timeline.number in each.clock)):
                    continue  # whoever knows of the new one knows of it
            kept.append(each)
        clock = {timeline.number: timeline.clock[timeline.number]}
        self._of[storage] = [*kept, _Access(first, last, clock, writes, f"{what} on {timeline.name}")]

    def free(self, storage: int, timeline: Timeline) -> str | None:
        """The memory may be had by what ``timeline`` does next. Returns what may still be at it, if anything."""
        at_it = [each.told for each in self._of.pop(storage, []) if not timeline.knows(each.clock)]
        return at_it[0] if at_it else None
