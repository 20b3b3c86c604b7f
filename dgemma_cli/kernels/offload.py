"""Experts that are kept in the host's memory and copied to the device ahead of their turn, layer by layer.

Two places on the device take turns: while one layer's experts compute in one, the next layer's are copied into the
other. A layer always uses the same place, so what is computed stands at fixed addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        """Begin to copy (from the host, to the device), once the device has come past the mark ``after``, if any.

        Copies come one after another in the order they were begun. Returns a ticket.
        """
        ...

    def wait(self, ticket: Any) -> None:
        """What is launched from now on comes after the copy."""
        ...


class CudaCopier:
    """A stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    def begin(self, pairs: Sequence[tuple[Tensor, Tensor]], after: torch.cuda.Event | None) -> torch.cuda.Event:
        if after is not None:
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
        self._holds: list[int | None] = [None] * PLACES
        self._tickets: list[Any] = [None] * PLACES
        self._marks: list[Any] = [None] * PLACES  # behind the last use of each place

    def use(self, turn: int, compute: Callable[[nn.Module], Tensor]) -> Tensor:
        """``compute`` with the experts of layer number ``turn``, counted among those that are carried."""
        place = turn % PLACES
        if self._holds[place] != turn:  # the first pass, or one that was left before its end
            self._fetch(turn)
        self._copier.wait(self._tickets[place])
        try:
            return compute(self._places[place])
        finally:
            self._marks[place] = self._copier.mark()
            following = turn + PLACES
            self._fetch(following if following < len(self._kept) else place)

    def _fetch(self, turn: int) -> None:
        place = turn % PLACES
        if self._holds[place] == turn:
            return
        self._holds[place] = turn
        pairs = list(zip(self._kept[turn], self._room[place], strict=True))
        self._tickets[place] = self._copier.begin(pairs, self._marks[place])


class OffloadedExperts(nn.Module):
    """In the place of a layer's experts: the same results, from weights in the host's memory.

    kept: the experts themselves; turn: this layer's number among those of the ferry.
    """

    def __init__(self, kept: nn.Module, ferry: Ferry, turn: int) -> None:
        super().__init__()
        self.kept = kept
        self._ferry = ferry
        self._turn = turn

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x: [N, hidden]; weights, experts: [N, top_k]. Returns [N, hidden]."""
        return self._ferry.use(self._turn, lambda module: module(x, weights, experts))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*(parameter.data for parameter in module.parameters()), *module.buffers()]


def _shapes(tensors: Sequence[Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]
