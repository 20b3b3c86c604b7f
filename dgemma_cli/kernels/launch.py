"""What the launching half of every Triton kernel asks."""

from __future__ import annotations

import triton
from torch import Tensor


def require(*tensors: Tensor | None) -> None:
    """The kernels address their tensors as one contiguous stretch each. Raises ValueError where one is not."""
    for index, tensor in enumerate(tensors):
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"kernel argument {index} is not contiguous: {tuple(tensor.shape)}, {tensor.stride()}")


def row_warps(block: int) -> int:
    """Warps for a program that holds one row of ``block`` numbers: 16 numbers a thread, at most 8 warps."""
    return max(1, min(8, block // 512))


def architecture(tensor: Tensor) -> int | None:
    """Compute capability of the card ``tensor`` is on, 90 for 9.0; None on a CPU, where kernels are interpreted."""
    return None if tensor.device.type == "cpu" else int(triton.runtime.driver.active.get_current_target().arch)
