"""Simulated GPUs. A test fails for whatever is refused on them, unless it has planted that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_fixtures import dgemma
from sim_cuda import AVAILABLE, cuda
from sim_machine import Machine

__all__ = ["dgemma"]

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "parity"), str(TESTS / "weights")]


@pytest.fixture
def gpus() -> Iterator[Machine]:
    if not AVAILABLE:
        pytest.skip("this torch has CUDA's own kernels")
    pytest.importorskip("triton")
    with cuda() as machine:
        yield machine
    assert bool(machine.problems) == machine.planted, machine.problems


@pytest.fixture
def planted(gpus: Machine) -> Machine:
    """For tests in which something must be refused."""
    gpus.planted = True
    return gpus
