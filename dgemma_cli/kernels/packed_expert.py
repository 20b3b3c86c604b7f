"""One packed expert in bfloat16 on a CPU, in one call: unpacked some rows at a time, and multiplied by its tokens.

Unpacked by Python's calls one by one, experts keep two threads waiting for Python's lock half of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dgemma_cli.kernels.at_once import at_once
from dgemma_cli.kernels.bits import look_up
from dgemma_cli.kernels.scratch import Scratch


def decode(codes: Tensor, scale: Tensor, factor: Tensor, out: Tensor, words: Tensor, held: list[Tensor]) -> None:
    """Numbers of some rows of a stack of matrices: each format has such a function, of this name, for ``at_once``.

    codes: [stack, n, ...]; scale: [stack, n, groups]; factor: [stack], the matrices' own scales, of formats that have
    them. out: bfloat16, flat, for stack * n * columns numbers or more; words: the same memory as integers; held: what
    is worked in.
    """
    raise NotImplementedError


class Stored(NamedTuple):
    """One packed matrix of some stacked ones, as a ``decode`` takes it."""

    codes: Tensor
    scale: Tensor
    factor: Tensor


class Room(NamedTuple):
    """What is worked in, see ``decode``."""

    out: Tensor
    words: Tensor
    held: list[Tensor]


def room(own: Scratch, most: int, words: torch.dtype, held: list[Tensor]) -> Room:
    """For ``most`` numbers at a time. words: a dtype of integers."""
    count = most * torch.bfloat16.itemsize // words.itemsize
    return Room(own.take("rounded", (most,), torch.bfloat16), own.take("rounded", (count,), words), held)


def looking_up(own: Scratch) -> list[Tensor]:
    """What ``bits.look_up`` works in."""
    return [own.take("places", (_AT_ONCE // 4,), torch.int64), own.take("wide", (_AT_ONCE,), torch.float32)]


_AT_ONCE = 2**18  # values looked up at once: more than a row of any matrix


def expert(
    x: Tensor,
    rows: Tensor,
    up_codes: Tensor,
    up_scale: Tensor,
    up_factor: Tensor,
    down_codes: Tensor,
    down_scale: Tensor,
    down_factor: Tensor,
    out: Tensor,
    words: Tensor,
    held: list[Tensor],
    most: int,
    scaled: bool,
) -> Tensor:
    """down(gelu(gate) * up) of some rows of x [N, hidden]. scaled: whether the numbers are without their rows' scales,
    [stack, n, 1], which the products are multiplied by. For ``at_once``, with a ``decode``.
    """
    x = x.index_select(0, rows)
    hidden, inner = x.shape[1], up_codes.shape[1]
    found: list[Tensor] = []
    step = max(1, most // (2 * hidden))
    for first in range(0, inner, step):
        last = min(first + step, inner)
        count = 2 * (last - first) * hidden
        decode(up_codes[:, first:last], up_scale[:, first:last], up_factor, out, words, held)
        weight = out[:count].view(2, -1, hidden)
        if scaled:
            gate = torch.ops.mkldnn._linear_pointwise(x, weight[0], None, "none", [], "")
            up = torch.ops.mkldnn._linear_pointwise(x, weight[1], None, "none", [], "")
            gate.mul_(up_scale[0, first:last].view(-1))
            active = torch.ops.aten.gelu(gate, approximate="tanh")
            found.append(active.mul_(up.mul_(up_scale[1, first:last].view(-1))))
        else:
            active = torch.ops.mkldnn._linear_pointwise(x, weight[0], None, "gelu", [], "tanh")
            found.append(torch.ops.mkldnn._linear_pointwise(x, active, weight[1], None, "mul"))
    x = found[0] if len(found) == 1 else torch.cat(found, -1)
    found = []
    step = max(1, most // inner)
    for first in range(0, hidden, step):
        last = min(first + step, hidden)
        decode(down_codes[:, first:last], down_scale[:, first:last], down_factor, out, words, held)
        weight = out[: (last - first) * inner].view(-1, inner)
        product = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        found.append(product.mul_(down_scale[0, first:last].view(-1)) if scaled else product)
    return found[0] if len(found) == 1 else torch.cat(found, -1)


def expert_with(decode: Callable[..., None]) -> Callable[..., Tensor]:
    """``expert`` of a format."""
    return at_once(expert, look_up, decode)
