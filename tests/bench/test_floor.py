"""The floor's counts against counts made by somebody else: torch's own of a real pass, and the published sizes."""

from __future__ import annotations

import pytest
import tiny
import torch
from simulated import Clock, Simulated, case
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import dgemma_cli
from dgemma_cli import memory
from dgemma_cli.bench.floor import Device, Resident, floor, multiply_adds, step_bytes
from dgemma_cli.bench.runner import Plan, rounds
from dgemma_cli.engine.probe import weigh
from dgemma_cli.engine.rates import bandwidth, matmul_rate
from dgemma_cli.model.model import Model
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK


def counted(model: Model, context: int, conditioned: bool) -> float:
    """Multiply-adds of one step, as torch counts those that its products really make."""
    cache = model.new_cache()
    model.encode(torch.arange(context) % model.config.vocab_size, cache)
    canvas = torch.arange(model.config.canvas_length) % model.config.vocab_size
    soft = torch.zeros(len(canvas), model.config.hidden_size) if conditioned else None
    # Attention as plain products, which are the ones that are counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model.denoise(canvas, cache, soft)
        if conditioned:
            model.expected_embedding(logits.softmax(-1))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("context", [5, 100, 2000])
def test_multiply_adds_of_nano(context: int, conditioned: bool) -> None:
    """Before and behind the sliding window."""
    model = dgemma_cli.load("nano", device="cpu", dtype="float32")
    found = multiply_adds(model.config, context, float(conditioned))
    assert found == pytest.approx(counted(model, context, conditioned), rel=0.001)


def test_multiply_adds_of_another_shape() -> None:
    model = tiny.random_model(canvas=16)
    assert multiply_adds(model.config, 40) == pytest.approx(counted(model, 40, True), rel=0.001)


def test_multiply_adds_of_the_published_network() -> None:
    """3.8 billion active parameters are published, each of them used once for every position."""
    assert multiply_adds(NETWORK, 0, conditioned=0.0) == pytest.approx(3.8e9 * 256, rel=0.05)


def test_bytes_of_the_published_network() -> None:
    """All experts at 4 bits and the embedding twice: 5.8 ms at 3.35 TB/s is published."""
    weights = memory.of_scheme(NETWORK, CHECKPOINTS["diffusiongemma:nvfp4"].scheme).weights
    embedding, experts = 2 * 262_144 * 2816, 12_850_000_000
    resident = Resident(experts, embedding, weights - embedding - experts)
    all_of_them = step_bytes(NETWORK, Device("memory", 3.35e12, resident, None, 2), 1024)
    assert all_of_them / 3.35e12 == pytest.approx(5.8e-3, rel=0.02)
    assert all_of_them - step_bytes(NETWORK, Device("memory", 1.0, resident, 84.0, 2), 1024) == pytest.approx(
        experts * 44 / 128
    )
    # The cache: 20,480 bytes for each token more; the window is full already.
    longer = step_bytes(NETWORK, Device("memory", 1.0, resident, None, 2), 33 * 1024)
    assert longer - all_of_them == 32 * 1024 * 20_480


def test_the_floor_of_a_run_is_that_of_its_average_step() -> None:
    clock, config = Clock(), tiny.config(canvas=8)
    found = rounds(Simulated(clock, blocks=3, steps=4), [case()], Plan(2, warmup=0), clock)
    samples = [samples[0] for samples in found]
    least = floor(config, Device("compute", 5e6, None, None, 4), samples)
    # Three blocks behind 10, 18 and 26 tokens; of four steps three are conditioned.
    assert least.work == multiply_adds(config, 18, 0.75)
    assert least.seconds == least.work / 5e6
    with pytest.raises(ValueError, match="not weighed"):
        floor(config, Device("memory", 5e6, None, None, 4), samples)


def test_weights_are_weighed() -> None:
    model = tiny.random_model()
    experts, embedding, rest = weigh(model)
    config = model.config
    assert embedding == 4 * config.vocab_size * config.hidden_size
    assert experts == 4 * 2 * 4 * 3 * config.hidden_size * config.moe_intermediate_size
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert experts + embedding + rest == 4 * (everything - 2)  # the encoder's two scalars are not read in a step


class Ticking:
    """A clock by which every piece of work takes a second."""

    def __init__(self) -> None:
        self.reads, self.now = 0, 0.0

    def __call__(self) -> float:
        self.reads += 1
        if self.reads % 2 == 0:
            self.now += 1.0
        return self.now


def test_rates_are_work_by_time() -> None:
    cpu = torch.device("cpu")
    assert matmul_rate(cpu, torch.float32, Ticking()) == 512 * 1024 * 1024
    # A megabyte is read and as much is written in a second.
    assert bandwidth(cpu, Ticking(), most=1 << 20) == 2 << 20
