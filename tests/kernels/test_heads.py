"""Head norms, rotation and the writing of the cache against ``model.norm`` and ``model.rotary``."""

from __future__ import annotations

import pytest
import torch
from kernel_inputs import Inputs

from dgemma_cli.kernels.heads import split_heads
from dgemma_cli.model.config import RotaryConfig
from dgemma_cli.model.norm import rms_norm
from dgemma_cli.model.rotary import angles, inverse_frequencies, rotate

EPS = 1e-6


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 2, 16), (8, 8, 32), (3, 1, 64), (16, 2, 512)])
@pytest.mark.parametrize("own_values", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_split_heads(
    device: torch.device, dtype: torch.dtype, own_values: bool, heads: int, kv_heads: int, dim: int
) -> None:
    tokens, start, capacity = 3, 5, 11
    make = Inputs(device, dtype)
    qkv = make.random(tokens, (heads + (1 + own_values) * kv_heads) * dim, scale=2)
    q_norm, k_norm = make.random(dim), make.random(dim)
    positions = torch.arange(start, start + tokens, device=device)[None] + 100_000  # the cache need not begin at 0
    rotary = RotaryConfig(10_000.0, 1.0 if own_values else 0.25)
    cos, sin = angles(positions, inverse_frequencies(dim, rotary, device))  # [1, T, 1, d / 2]
    k, v, out = (
        make.poisoned(kv_heads, capacity, dim),
        make.poisoned(kv_heads, capacity, dim),
        make.poisoned(tokens, heads, dim),
    )
    length = torch.tensor([start], device=device, dtype=torch.int32)
    assert split_heads(qkv, heads, kv_heads, q_norm, k_norm, cos[0, :, 0], sin[0, :, 0], k, v, length, EPS, out) is out

    parts = qkv.float().view(1, tokens, -1, dim)  # [1, T, rows, d]
    q, keys = parts[:, :, :heads], parts[:, :, heads : heads + kv_heads]
    values = parts[:, :, heads + kv_heads :] if own_values else keys
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-3}
    kept = slice(start, start + tokens)
    for found, expected in (
        (out, rotate(rms_norm(q, q_norm, EPS), cos, sin)[0]),
        (k[:, kept], rotate(rms_norm(keys, k_norm, EPS), cos, sin)[0].transpose(0, 1)),
        (v[:, kept], rms_norm(values, None, EPS)[0].transpose(0, 1)),
    ):
        torch.testing.assert_close(found, expected.to(dtype), **tolerance)
    for cache in (k, v):  # nothing else was touched
        assert cache[:, :start].isnan().all() and cache[:, start + tokens :].isnan().all()


def test_nothing_is_written_beyond_the_capacity(device: torch.device) -> None:
    make = Inputs(device)
    qkv, weight, turn = make.random(4, 3 * 16), make.random(16), make.random(4, 8)
    k, v = make.poisoned(2, 6, 16), make.poisoned(2, 6, 16)  # the second head stands for what lies behind
    start = torch.tensor([4], device=device, dtype=torch.int32)
    split_heads(qkv, 1, 1, weight, weight, turn, turn, k, v, start, EPS)
    for cache in (k, v):
        assert not cache[0, 4:].isnan().any() and cache[0, :4].isnan().all() and cache[1].isnan().all()


def test_a_projection_of_another_size_is_refused(device: torch.device) -> None:
    make = Inputs(device)
    qkv, weight, turn, k = make.random(2, 80), make.random(16), make.random(2, 8), make.random(2, 4, 16)
    with pytest.raises(ValueError, match="80 columns"):
        split_heads(qkv, 2, 2, weight, weight, turn, turn, k, k, torch.zeros(1, dtype=torch.int32), EPS)
