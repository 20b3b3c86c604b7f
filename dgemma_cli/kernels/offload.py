"""Experts that are kept in the host's memory and copied to the device ahead of their turn, layer by layer.

Two places on the device take turns: while one layer's experts compute in one, the next layer's are copied into the
other. A layer always uses the same place, so what is computed stands at fixed addresses. The first two set off when a
pass begins, and arrive while the layers whose experts are on the device compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

PLACES = 2  # on the device


class Copier(Protocol):
    """How a device copies beside its computing. Marks and tickets are its own matter."""

    def mark(self) -> Any:
        """A point behind all that was launched so far."""
        ...

    def begin(self, pairs: Sequence[tuple[Tensor, Tensor]], after: Any) -> Any:
        """Begin to copy (from the host, to the device), once the device has come past the mark ``after``.

        Copies come one after another in the order they were begun. Returns a ticket.
        """
        ...

    def wait(self, ticket: Any) -> None:
        """What is launched from now on comes after the copy."""
        ...


class CudaCopier:
    """A stream of its own. While work is recorded, marks and tickets fork from its recording and join it again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    def begin(self, pairs: Sequence[tuple[Tensor, Tensor]], after: torch.cuda.Event) -> torch.cuda.Event:
        self._stream.wait_event(after)
        with torch.cuda.stream(self._stream):
            for source, target in pairs:
                target.copy_(source, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)
        return event

    def wait(self, ticket: torch.cuda.Event) -> None:
        torch.cuda.current_stream(self._device).wait_event(ticket)


class Ferry:
    """Carries the experts of some layers, which take their turns in the same order in every pass.

    Nothing is carried from one pass to the next: what a pass begins to copy, it waits for. So a pass can be recorded.

    kept: a module of experts for each, in the host's memory; places: modules like these on the device, two of them.
    """

    def __init__(self, kept: Sequence[nn.Module], places: Sequence[nn.Module], copier: Copier) -> None:
        if len(places) != PLACES:
            raise ValueError(f"{PLACES} places are wanted")
        self._kept = [list(_tensors(module)) for module in kept]
        self._room = [list(_tensors(module)) for module in places]
        if any(_shapes(one) != _shapes(self._room[0]) for one in [*self._kept, *self._room]):
            raise ValueError("the experts of these layers differ in their formats")
        self._places = places
        self._copier = copier
        self._tickets: list[Any] = []
        self._turns = 0  # of the pass under way

    @contextmanager
    def carrying(self, without: int = 0) -> Iterator[None]:
        """Around a pass: the first experts set off while the layers before them compute. without: how many of the last
        layers do without their experts.
        """
        self._turns = len(self._kept) - without
        free = self._copier.mark()  # behind the pass before, which may be using the places
        self._tickets = [self._begin(turn, free) for turn in range(min(PLACES, self._turns))]
        try:
            yield
        finally:
            # Copies come one after another. One that nobody waited for, in a pass that was left before its end, must
            # not meet those of the next pass, which a recording may make on a stream of its own.
            if self._tickets:
                self._copier.wait(self._tickets[-1])

    def use(self, turn: int, compute: Callable[[nn.Module], Tensor]) -> Tensor:
        """``compute`` with the experts of layer number ``turn``, counted among those that are carried."""
        self._copier.wait(self._tickets[turn])
        found = compute(self._places[turn % PLACES])
        if turn + PLACES < self._turns:
            self._tickets.append(self._begin(turn + PLACES, self._copier.mark()))
        return found

    def _begin(self, turn: int, free: Any) -> Any:
        """Begin to copy, once the device has come past the mark ``free``."""
        return self._copier.begin(list(zip(self._kept[turn], self._room[turn % PLACES], strict=True)), free)


class OffloadedExperts(nn.Module):
    """In the place of a layer's experts: the same results, from weights in the host's memory.

    kept: the experts themselves; turn: this layer's number among those of the ferry.
    """

    def __init__(self, kept: nn.Module, ferry: Ferry, turn: int) -> None:
        super().__init__()
        self.kept = kept
        self._ferry = ferry
        self._turn = turn

    def lend(self, compute: Callable[[nn.Module], Tensor]) -> Tensor:
        """``compute`` with the experts, where they are on the device."""
        return self._ferry.use(self._turn, compute)

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x: [N, hidden]; weights, experts: [N, top_k]. Returns [N, hidden]."""
        return self.lend(lambda module: module(x, weights, experts))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*(parameter.data for parameter in module.parameters()), *module.buffers()]


def _shapes(tensors: Sequence[Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]
