"""What is in a first kernel's way is found, and told in a few words."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import torch

from dgemma_cli.kernels import trial as module
from dgemma_cli.kernels.trial import trial


class _Kernel:
    """Stands for a compiled kernel: raises, or writes a number."""

    def __init__(self, outcome: Exception | int) -> None:
        self._outcome = outcome

    def __getitem__(self, grid: object) -> Any:
        def launch(out: torch.Tensor) -> None:
            if isinstance(self._outcome, Exception):
                raise self._outcome
            out.fill_(self._outcome)

        return launch


def test_a_kernel_that_runs(device: torch.device) -> None:
    assert trial(device) is None


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (RuntimeError("Failed to find C compiler. Please specify via CC"), "Triton finds no C compiler (install gcc)"),
        (
            subprocess.CalledProcessError(1, ["gcc", "main.c"]),
            "the C compiler that Triton needs failed (are Python's headers installed, python3-dev?)",
        ),
        (OSError("no kernel image\nis available"), "Triton fails here: OSError: no kernel image is available"),
        (2, "a first kernel of Triton's wrote 2 for 1"),
        (1, None),
    ],
)
def test_what_is_in_the_way(monkeypatch: pytest.MonkeyPatch, outcome: Exception | int, why: str | None) -> None:
    monkeypatch.setattr(module, "_write_one", _Kernel(outcome))
    assert trial(torch.device("cpu")) == why
