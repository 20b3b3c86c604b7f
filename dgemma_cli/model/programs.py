"""Work that is recorded once and run many times: as CUDA graphs, or simply called again.

Whoever writes such work keeps to this: its inputs and outputs are tensors that stay where they are, nothing in it
hangs on a number that the host knows, and nothing is read back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from dgemma_cli.kernels.placing import on

Run = Callable[[], object]


class Executor(Protocol):
    """How a device runs recorded work."""

    name: str  # for people to read

    def record(self, work: Run) -> Run:
        """What does ``work`` again, each time it is called. The work may be run for it, any number of times."""
        ...

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device copies from and to without the host waiting."""
        ...

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], behind: bool = True) -> Run:
        """Begin to copy (from the device, to ``host`` memory) beside what is launched later, which must not write to
        the sources. The result waits for the copies.

        behind: what is launched now comes first; without it, only what an earlier ``fetch`` came behind.
        """
        ...


class Calls:
    """Calls the work itself."""

    name = "calls"

    def record(self, work: Run) -> Run:
        return work

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.zeros(*shape, dtype=dtype)

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], behind: bool = True) -> Run:
        for source, target in pairs:
            target.copy_(source)
        return lambda: None


class Graphs:
    """CUDA graphs, whose memory is one pool; copies to the host go over a stream of their own."""

    name = "CUDA graphs"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)
        # First runs and recordings are made on one stream: the libraries' workspace is that of a stream, and what a
        # recording took for it would lie in the recordings' memory for good.
        self._aside = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._first: torch.cuda.CUDAGraph | None = None

    def record(self, work: Run) -> Run:
        # Kernels are compiled and libraries take their workspace in a first run, outside of the recording.
        current = torch.cuda.current_stream(self._device)
        self._aside.wait_stream(current)
        try:
            with torch.cuda.stream(self._aside):
                work()
        finally:  # also where it was interrupted: what is launched next comes behind
            current.wait_stream(self._aside)
        # A pool that its last graph has left, as when a cache grows, takes no other: this one stays.
        self._first = self._first or self._recorded(lambda: torch.zeros(1, device=self._device))
        return self._recorded(work).replay

    def _recorded(self, work: Run) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Other threads may draw and serve meanwhile: only this thread's calls are held to the rules of a recording.
        recording = torch.cuda.graph(graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local")
        with on(self._device), recording:
            work()
        return graph

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, pin_memory=True)

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], behind: bool = True) -> Run:
        if behind:
            self._copies.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._copies):
            for source, target in pairs:
                target.copy_(source, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._copies)
        return done.synchronize
