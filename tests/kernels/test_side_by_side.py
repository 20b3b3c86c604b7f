"""That races and reads beyond a tensor are seen, in kernels that have them."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
import triton
import triton.language as tl

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are not interpreted here")


@triton.jit
def _shift(x_ptr, SIZE: tl.constexpr, KIND: tl.constexpr):
    own = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    if KIND == "another's":
        x = tl.load(x_ptr + own + SIZE, mask=own + SIZE < tl.num_programs(0) * SIZE, other=0.0)
        tl.store(x_ptr + own, x)
    elif KIND == "both write":
        tl.store(x_ptr + tl.arange(0, SIZE), tl.zeros((SIZE,), tl.float32))
    elif KIND == "its own":
        tl.store(x_ptr + own, tl.zeros((SIZE,), tl.float32))
        tl.store(x_ptr + own, tl.load(x_ptr + own) + 1)
    elif KIND == "beyond":
        tl.store(x_ptr + own, tl.load(x_ptr + own + 1))
    elif KIND == "in place":
        tl.store(x_ptr + own, tl.load(x_ptr + own) + 1)


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("another's", "reads where another one writes"),
        ("both write", "two programs write to one place"),
        ("its own", "reads back what it has written"),
        ("beyond", "is in none of"),
    ],
)
def test_what_is_seen(kind: str, seen: str) -> None:
    x = torch.zeros(32)
    with pytest.raises(Exception, match=seen):
        _shift[(2,)](x, 16, kind)


def test_what_is_right() -> None:
    x = torch.zeros(32)
    _shift[(2,)](x, 16, "in place")
    assert (x == 1).all()
