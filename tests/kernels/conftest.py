"""Triton's kernels run on the GPU if there is one, else in Triton's interpreter on CPU tensors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch

INTERPRETED = not torch.cuda.is_available()

if INTERPRETED:
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("triton was imported before it could be told to interpret its kernels")
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def device() -> torch.device:
    """Where kernels run."""
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(autouse=True, scope="session")
def _as_side_by_side() -> Iterator[None]:
    """Kernels are held to what running side by side asks of them."""
    if not INTERPRETED:
        yield
        return
    pytest.importorskip("triton")
    from side_by_side import watched

    with watched():
        yield


@pytest.fixture(autouse=True)
def _fresh_memory_holds_no_numbers() -> Iterator[None]:
    """But NaN, or the largest of its kind. On a GPU some of torch's own operations cannot be told to."""
    if not INTERPRETED:
        yield
        return
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True, scope="session")
def _true_bfloat16() -> Iterator[None]:
    """The interpreter keeps bfloat16 as whole numbers: it multiplies matrices of them as such, and cuts float32 short
    where a GPU rounds to the nearest. Here both are as on a GPU.
    """
    if not INTERPRETED:
        yield
        return
    tl = pytest.importorskip("triton.language")
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def widened(handle: TensorHandle) -> TensorHandle:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype("uint32") << 16).view("float32"), tl.float32)

    def rounded(handle: TensorHandle) -> TensorHandle:
        bits = torch.from_numpy(handle.data.copy()).bfloat16().view(torch.int16)
        return TensorHandle(bits.numpy().view("uint16"), tl.bfloat16)

    dot, cast, convert = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl, InterpreterBuilder.create_fp_to_fp

    def create_dot(self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, *rest: object) -> TensorHandle:
        return dot(self, widened(a), widened(b), *rest)

    def narrows(source: TensorHandle, target: tl.dtype) -> bool:
        return source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16

    def cast_impl(self: InterpreterBuilder, source: TensorHandle, target: tl.dtype) -> TensorHandle:
        return rounded(source) if narrows(source, target) else cast(self, source, target)

    def create_fp_to_fp(self: InterpreterBuilder, source: TensorHandle, target: tl.dtype, mode: object) -> TensorHandle:
        return rounded(source) if narrows(source, target) else convert(self, source, target, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_dot", create_dot)
        patch.setattr(InterpreterBuilder, "cast_impl", cast_impl)
        patch.setattr(InterpreterBuilder, "create_fp_to_fp", create_fp_to_fp)
        yield
