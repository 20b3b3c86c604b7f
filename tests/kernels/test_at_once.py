"""Functions that run as one call give what they give in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dgemma_cli.kernels import blocked
from dgemma_cli.kernels.at_once import at_once
from dgemma_cli.kernels.reference import route
from dgemma_cli.model import experts, model, norm
from dgemma_cli.model.rotary import rotate


def noise(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


CASES: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "norm": (norm._in_place, lambda: (noise(3, 5, 64), noise(64), 1e-6)),
    "norm without a weight": (norm._in_place, lambda: (noise(3, 5, 64), None, 1e-6)),
    "rotate": (rotate, lambda: (noise(1, 5, 4, 32), noise(1, 5, 1, 16).float(), noise(1, 5, 1, 16).float())),
    "rotate in float32": (rotate, lambda: tuple(noise(1, 5, 4, n, dtype=torch.float32) for n in (32, 16, 16))),
    "route": (route, lambda: (noise(9, 16), 4, noise(16))),
    "router's scale": (experts._scaled, lambda: (noise(9, 64), noise(64), 0.125)),
    "cap": (model._cap, lambda: (torch.empty(4, 50), noise(4, 50), 30.0)),
}
if blocked.available():
    pair = lambda: (noise(32, 64), noise(33, 64)[:32])  # noqa: E731
    CASES["gated"] = blocked.gated, lambda: (noise(9, 64), *pair())
    CASES["expert"] = blocked._expert, lambda: (noise(9, 64), torch.tensor([7, 0, 3]), *pair(), noise(64, 32))
    CASES["expert of all rows"] = blocked._expert, lambda: (noise(9, 64), None, *pair(), noise(64, 32))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_same_bits(name: str) -> None:
    function, arguments = CASES[name]
    found, plain = function(*arguments()), function.__wrapped__(*arguments())  # type: ignore[attr-defined]
    for turn in range(3):  # the compiler looks on for a call or two before it optimises
        for one, other in zip(found, plain, strict=True) if isinstance(found, tuple) else [(found, plain)]:
            assert one.dtype == other.dtype, turn
            assert torch.equal(one, other), turn
        found = function(*arguments())


def doubled(x: Tensor) -> Tensor:
    return x * 2


def twice_doubled(x: Tensor) -> Tensor:
    if not torch.jit.is_scripting():
        PLAIN.append(x)
    return doubled(doubled(x))


PLAIN: list[Tensor] = []


def test_plain_with_gradients_and_one_call_without() -> None:
    function = at_once(twice_doubled, doubled)
    x = torch.ones(2, requires_grad=True)
    function(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [4, 4]
    assert len(PLAIN) == 1
    with torch.no_grad():
        assert function(x).tolist() == [4, 4]
    assert len(PLAIN) == 1
