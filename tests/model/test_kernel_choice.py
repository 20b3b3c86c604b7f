"""Which kernels a model gets, and that nobody gets others than asked for without being told."""

from __future__ import annotations

import re

import pytest
import tiny
import torch

from dgemma_cli.errors import NoDevice, UsageError
from dgemma_cli.kernels import blocked
from dgemma_cli.model import kernel_choice, kernel_terms
from dgemma_cli.model.kernel_choice import choose_kernels
from dgemma_cli.model.kernel_terms import asked_kernels
from dgemma_cli.model.model import Model


class OnCuda(Model):
    """Says that it is on a CUDA device."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> OnCuda:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    return OnCuda(tiny.config()).bfloat16()


def test_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in ((None, "auto"), ("", "auto"), ("reference", "reference"), ("triton", "triton")):
        monkeypatch.delenv("DGEMMA_KERNELS", raising=False)
        if value is not None:
            monkeypatch.setenv("DGEMMA_KERNELS", value)
        assert asked_kernels() == expected
    monkeypatch.setenv("DGEMMA_KERNELS", "cutlass")
    with pytest.raises(UsageError, match="auto, reference or triton, not 'cutlass'"):
        asked_kernels()


def test_on_the_cpu() -> None:
    if blocked.available():
        assert choose_kernels(tiny.random_model().bfloat16(), "auto").kernels == "oneDNN blocked"
    assert choose_kernels(tiny.random_model(), "auto").kernels == "torch reference"
    chosen = choose_kernels(tiny.random_model().bfloat16(), "reference")
    assert chosen.kernels == "torch reference, as DGEMMA_KERNELS asks"
    with pytest.raises(NoDevice, match="asks for Triton's kernels, but the model is on the CPU"):
        choose_kernels(tiny.random_model(), "triton")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model, patch: patch.setattr(kernel_choice, "find_spec", lambda name: None), "Triton is not installed"),
        (
            lambda model, patch: patch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5)),
            "the GPU's compute capability is 7.5, below 8.0",
        ),
        (
            lambda model, patch: patch.setattr(torch.version, "hip", "6.4"),
            "this torch is built for AMD's GPUs, and the kernels are written for NVIDIA's",
        ),
        (lambda model, patch: model.float(), "the dtype is float32, not bfloat16"),
        (lambda model, patch: None, "the model's sizes .32, 24, 16. are not all multiples of 16"),
    ],
)
def test_what_is_in_the_way_on_cuda(on_cuda: OnCuda, monkeypatch: pytest.MonkeyPatch, change: object, why: str) -> None:
    monkeypatch.setattr(kernel_choice, "find_spec", lambda name: name)
    change(on_cuda, monkeypatch)  # type: ignore[operator]
    with pytest.raises(UsageError, match=why):
        choose_kernels(on_cuda, "triton")
    chosen = choose_kernels(on_cuda, "auto")
    assert chosen is on_cuda
    assert re.fullmatch(f"torch reference: {why}", chosen.kernels)


def test_a_first_kernel_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, on_cuda: OnCuda) -> None:
    trial = pytest.importorskip("dgemma_cli.kernels.trial")
    monkeypatch.setattr(kernel_choice, "find_spec", lambda name: name)
    monkeypatch.setattr(kernel_terms, "_SIZES", 1)
    monkeypatch.setattr(kernel_terms, "_HEADS", {layer.head_dim for layer in on_cuda.config.layers})
    monkeypatch.setattr(trial, "trial", lambda device: "Triton finds no C compiler (install gcc)")
    told: list[str] = []
    assert choose_kernels(on_cuda, "auto", tell=told.append) is on_cuda
    assert told == [
        "slower: plain torch computes instead of Triton's kernels, since Triton finds no C compiler (install gcc)"
    ]
    with pytest.raises(UsageError, match="Triton's kernels, but Triton finds no C compiler"):
        choose_kernels(on_cuda, "triton")
