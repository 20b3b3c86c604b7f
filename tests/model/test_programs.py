"""Recordings as CUDA's memory asks for them, without a GPU: with as much of its bookkeeping as can go wrong."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from dgemma_cli.model.programs import Graphs


class Cuda:
    """Streams, pools and graphs of one device. A library takes its workspace where it is first used on a stream, for
    good; a pool that its last graph has left takes no other graph, if something lies in it still.
    """

    def __init__(self) -> None:
        self.stream = "the usual"
        self.made = 0
        self.pool: str | None = None  # that of the recording under way
        self.users: Counter[str] = Counter()  # graphs of a pool
        self.kept: set[str] = set()  # pools in which something lies for good
        self.workspaces: set[str] = set()  # streams
        self.ordered: list[tuple[str, str]] = []  # who waits for whom

    def product(self) -> None:
        if self.stream not in self.workspaces:
            self.workspaces.add(self.stream)
            if self.pool is not None:
                self.kept.add(self.pool)

    def new_stream(self, device: object = None) -> Stream:
        self.made += 1
        return Stream(self, f"stream {self.made}")

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.stream = self.stream, stream.name
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def graph(self, graph: Graph, pool: str, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        assert self.users[pool] or pool not in self.users, "use_count > 0 INTERNAL ASSERT FAILED"
        self.users[pool] += 1
        weakref.finalize(graph, self.users.subtract, [pool])
        self.pool = pool
        try:
            with self.on(stream):
                yield
        finally:
            self.pool = None


class Stream:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: Stream) -> None:
        self.cuda.ordered.append((self.name, other.name))


class Graph:
    def replay(self) -> None:
        pass


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    fake = Cuda()
    for name, part in {
        "Stream": fake.new_stream,
        "stream": fake.on,
        "current_stream": lambda device: Stream(fake, fake.stream),
        "graph_pool_handle": lambda: "pool",
        "CUDAGraph": Graph,
        "graph": fake.graph,
        "device": lambda device: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, part)
    return fake


def test_all_recordings_may_go_and_others_be_made(cuda: Cuda) -> None:
    """As when the buffers of the only cache grow."""
    graphs = Graphs(torch.device("cpu"))
    for _ in range(3):
        replays = [graphs.record(cuda.product) for _ in range(2)]
        assert replays
        del replays
    assert not cuda.kept  # no library has its workspace among the recordings' memory


def test_a_first_run_is_waited_for_even_if_it_is_interrupted(cuda: Cuda) -> None:
    graphs = Graphs(torch.device("cpu"))

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        graphs.record(interrupted)
    aside, usual = cuda.ordered[0]
    assert cuda.ordered == [(aside, usual), (usual, aside)]
    assert cuda.stream == usual
