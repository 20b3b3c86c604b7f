"""The simulation itself sees what it is there to see."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl
from sim_machine import Machine, Refused
from sim_order import Race
from torch import Tensor, nn

GPU = "cuda"


def test_numbers_are_the_cpu_s(gpus: Machine) -> None:
    values = torch.arange(6.0, device=GPU).view(2, 3)
    assert (values.device, values.is_cuda) == (torch.device("cuda", 0), True)
    values[0] = 7
    values[1, 1:] += torch.tensor(2.0)
    values[values > 6.5] = values.new_zeros(())
    assert values.tolist() == [[0, 0, 0], [3, 6, 0]]
    assert values.cpu().device.type == "cpu"
    layer = nn.Linear(3, 2).to(GPU)
    assert layer.weight.is_cuda
    assert isinstance(copy.deepcopy(layer).weight, nn.Parameter)
    expected = layer.cpu()(values.cpu())
    assert torch.equal(layer.to("cuda:0")(values).cpu(), expected)
    assert torch.equal(values.view(torch.int32)[1].view(torch.float32), values[1])


@pytest.mark.parametrize(
    "work",
    [
        lambda gpu, cpu: gpu + cpu,
        lambda gpu, cpu: cpu + gpu.sum(),
        lambda gpu, cpu: gpu.add_(cpu),
        lambda gpu, cpu: cpu.add_(gpu),
        lambda gpu, cpu: torch.cat((gpu, cpu)),
        lambda gpu, cpu: torch.where(cpu > 1, gpu, 0.0),
        lambda gpu, cpu: gpu.gather(0, torch.zeros(1, dtype=torch.int64)),
        lambda gpu, cpu: cpu[gpu.long()],
        lambda gpu, cpu: nn.functional.embedding(torch.zeros(1, dtype=torch.int64), gpu[None]),
        lambda gpu, cpu: gpu + torch.arange(4),
        lambda gpu, cpu: gpu + cpu.to("cuda:1"),
        lambda gpu, cpu: torch.searchsorted(gpu, torch.tensor(1.0)),
        lambda gpu, cpu: nn.functional.scaled_dot_product_attention(gpu[None], cpu[None], gpu[None]),
        lambda gpu, cpu: gpu.normal_(generator=torch.Generator()),
        lambda gpu, cpu: cpu.normal_(generator=torch.Generator(GPU)),
        lambda gpu, cpu: torch.mm(cpu[None], cpu[:, None], out=gpu[:1, None]),
        lambda gpu, cpu: gpu.numpy(),
        lambda gpu, cpu: gpu.data_ptr(),
    ],
)
def test_places_that_do_not_meet(planted: Machine, work: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(Refused):
        work(torch.arange(4.0, device=GPU), torch.arange(4.0))


def recorded(work: Callable[[], object], pool: object = None) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        work()
    return graph


@pytest.mark.parametrize(
    "work",
    [
        lambda gpu, page, pin: gpu.sum().item(),
        lambda gpu, page, pin: gpu.tolist(),
        lambda gpu, page, pin: bool((gpu > 1).any()),
        lambda gpu, page, pin: gpu[gpu > 1],
        lambda gpu, page, pin: gpu.nonzero(),
        lambda gpu, page, pin: gpu[torch.tensor([1])],
        lambda gpu, page, pin: gpu.copy_(page),
        lambda gpu, page, pin: gpu.copy_(page, non_blocking=True),
        lambda gpu, page, pin: gpu.copy_(pin),
        lambda gpu, page, pin: page.copy_(gpu, non_blocking=True),
        lambda gpu, page, pin: gpu.half().copy_(pin, non_blocking=True),
        lambda gpu, page, pin: gpu.cpu(),
        lambda gpu, page, pin: page.to(GPU),
        lambda gpu, page, pin: torch.tensor([1.0], device=GPU),
        lambda gpu, page, pin: torch.cuda.synchronize(),
        lambda gpu, page, pin: torch.zeros(1, pin_memory=True),
        lambda gpu, page, pin: torch.cuda.Event().query(),
        lambda gpu, page, pin: None,
    ],
)
def test_what_a_recording_refuses(planted: Machine, work: Callable[..., object]) -> None:
    gpu, page, pin = torch.arange(4.0, device=GPU), torch.arange(4.0), torch.arange(4.0).pin_memory()
    with pytest.raises(Refused):
        recorded(lambda: work(gpu, page, pin))


def test_a_recording_does_nothing_before_it_is_played(gpus: Machine) -> None:
    gpu, pin = torch.arange(4.0, device=GPU), torch.ones(4).pin_memory()
    results: list[Tensor] = []

    def work() -> None:
        gpu.add_(1)
        results.append(gpu * 2 + gpu.new_ones(4))
        gpu[:2].copy_(pin[:2], non_blocking=True)

    graph = recorded(work)
    assert gpu.tolist() == [0, 1, 2, 3]
    assert results[0].isnan().all()
    graph.replay()
    assert results[0].tolist() == [3, 5, 7, 9]
    assert gpu.tolist() == [1, 1, 3, 4]
    pin.fill_(9)  # what the host wrote in the meantime is seen; a number it had then is not
    graph.replay()
    assert gpu.tolist() == [9, 9, 4, 5]


def test_the_memory_of_a_pool_is_shared(gpus: Machine) -> None:
    gpu, pool = torch.ones(4, device=GPU), torch.cuda.graph_pool_handle()
    made: list[Tensor] = []
    first = recorded(lambda: (gpu * 2) * 2, pool)
    second = recorded(lambda: made.append(gpu + 1), pool)
    second.replay()
    assert made[0].tolist() == [2] * 4
    first.replay()
    assert made[0].isnan().all()


def test_a_pool_that_is_left(planted: Machine) -> None:
    gpu, pool = torch.ones(4, device=GPU), torch.cuda.graph_pool_handle()
    first = recorded(lambda: gpu * 2, pool)
    second = recorded(lambda: gpu * 2, pool)
    del first
    first = recorded(lambda: gpu * 2, pool)
    del first, second
    with pytest.raises(Refused, match="has left"):
        recorded(lambda: gpu * 2, pool)


def test_memory_that_a_graph_still_needs(gpus: Machine) -> None:
    gpu, out = torch.ones(4, device=GPU), torch.zeros(4, device=GPU)
    graph = recorded(lambda gpu=gpu: out.copy_(gpu))
    del gpu
    graph.replay()
    assert out.isnan().all()


def beside(work: Callable[[], object]) -> torch.cuda.Stream:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
    return stream


def test_streams_that_do_not_wait(planted: Machine) -> None:
    gpu = torch.ones(4, device=GPU)
    with pytest.raises(Race):
        beside(lambda: gpu.add_(1))


def test_streams_that_wait(gpus: Machine) -> None:
    gpu, pin = torch.ones(4, device=GPU), torch.zeros(4).pin_memory()
    stream, done = torch.cuda.Stream(), torch.cuda.Event()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        pin.copy_(gpu, non_blocking=True)
        done.record()
    gpu.sum()  # both read
    done.synchronize()
    assert pin.tolist() == [1] * 4
    gpu.add_(1)
    assert gpu.tolist() == [2] * 4


@pytest.mark.parametrize("look", [Tensor.tolist, Tensor.sum, lambda pin: pin[2].item(), lambda pin: pin.fill_(1)])
def test_the_host_looks_too_early(planted: Machine, look: Callable[[Tensor], object]) -> None:
    gpu, pin = torch.ones(4, device=GPU), torch.zeros(4).pin_memory()
    pin.copy_(gpu, non_blocking=True)
    with pytest.raises(Race):
        look(pin)
    torch.cuda.synchronize()
    look(pin)


def test_rows_that_are_apart(gpus: Machine) -> None:
    gpu, pin = torch.ones(4, 2, device=GPU), torch.zeros(4, 2).pin_memory()
    pin[1].copy_(gpu[1], non_blocking=True)
    pin[2].fill_(1)
    where = torch.tensor([2], device=GPU)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        pin[0].copy_(gpu[0], non_blocking=True)
    gpu.index_copy_(0, where, gpu[3:].clone())
    torch.cuda.synchronize()


def test_a_stream_that_joins_a_recording_and_is_left(planted: Machine) -> None:
    gpu, other = torch.ones(4, device=GPU), torch.ones(4, device=GPU)
    stream = torch.cuda.Stream()

    def fork(join: bool) -> None:
        gpu.add_(1)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            other.add_(gpu)
        if join:
            torch.cuda.current_stream().wait_stream(stream)

    recorded(lambda: fork(True)).replay()
    assert other.tolist() == [3] * 4
    with pytest.raises(Refused, match="without having waited"):
        recorded(lambda: fork(False))


def test_an_event_from_outside_of_a_recording(planted: Machine) -> None:
    before = torch.cuda.current_stream().record_event()
    with pytest.raises(Refused, match="from outside"):
        recorded(lambda: torch.cuda.current_stream().wait_event(before))


def test_memory_given_back_too_early(planted: Machine) -> None:
    gpu, pin = torch.ones(4, device=GPU), torch.zeros(4).pin_memory()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        pin.copy_(gpu, non_blocking=True)
    del gpu
    assert "given back" in planted.problems[0]


def test_waiting_where_it_is_forbidden(planted: Machine) -> None:
    gpu, pin = torch.ones(4, device=GPU), torch.zeros(4).pin_memory()
    torch.cuda.set_sync_debug_mode("error")
    gpu.copy_(pin, non_blocking=True)
    for work in (gpu.tolist, gpu.cpu, lambda: gpu.copy_(torch.zeros(4)), lambda: gpu[gpu > 0]):
        with pytest.raises(Refused):
            work()
    torch.cuda.set_sync_debug_mode("default")


def test_arguments_that_cuda_does_not_take(gpus: Machine) -> None:
    for wrong in (
        lambda: torch.cuda.Stream(timing=True),
        lambda: torch.cuda.Event(timing=True),
        lambda: torch.cuda.mem_get_info(0, 1),
        lambda: torch.cuda.synchronize("cpu"),
    ):
        with pytest.raises((TypeError, ValueError)):
            wrong()


def test_times_of_events(planted: Machine) -> None:
    one, other = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    one.record()
    other.record()
    with pytest.raises(Refused, match="not waited for"):
        one.elapsed_time(other)
    torch.cuda.synchronize()
    assert one.elapsed_time(other) >= 0
    with pytest.raises(Refused, match="enable_timing"):
        one.elapsed_time(torch.cuda.Event())


def test_memory_is_counted(gpus: Machine) -> None:
    before = torch.cuda.memory_allocated()
    gpu = torch.empty(1000, device=GPU)
    assert gpu.isnan().all()
    view = gpu[:10]
    assert torch.cuda.memory_allocated() == before + 4000
    del gpu
    assert torch.cuda.memory_allocated() == before + 4000
    del view
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() >= before + 4000
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == before


def test_threads_have_the_gpus_too(gpus: Machine) -> None:
    found: list[object] = []

    def work() -> None:
        with torch.device("cuda", 1):
            found.append(torch.ones(2).sum().device)
        found.append(torch.cuda.current_device())

    torch.cuda.set_device(1)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [torch.device("cuda", 1), 0]
    assert torch.ones(1, device="cuda").device.index == 1


@triton.jit
def _double(in_ptr, out_ptr, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    tl.store(out_ptr + place, tl.load(in_ptr + place) * 2)


def test_triton_s_kernels(planted: Machine) -> None:
    gpu, out = torch.arange(4.0, device=GPU), torch.zeros(4, device=GPU)
    graph = recorded(lambda: _double[(1,)](gpu, out, 4))
    assert out.tolist() == [0] * 4
    graph.replay()
    assert out.tolist() == [0, 2, 4, 6]
    with pytest.raises(Refused, match="memory of the host's"):
        _double[(1,)](gpu, torch.zeros(4), 4)
    with torch.cuda.device(1), pytest.raises(Refused, match="launched on cuda:1 with a tensor on cuda:0"):
        _double[(1,)](gpu, out, 4)


def test_it_ends(gpus: Machine) -> None:
    assert torch.cuda.is_available()


def test_it_has_ended() -> None:
    assert not torch.cuda.is_available()
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda")
