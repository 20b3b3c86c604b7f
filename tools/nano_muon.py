"""Muon: momentum whose matrices are made orthogonal before they are applied, for the hidden matrices of a network.

After Keller Jordan's description (https://kellerjordan.github.io/posts/muon/); matrices of one shape go together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: quintic Newton-Schulz iteration over [N, rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.to(torch.bfloat16)  # five steps need no more
    wide = x.shape[-2] <= x.shape[-1]
    if not wide:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x if wide else x.mT
    return result.to(matrices.dtype)


class Muon(Optimizer):
    """lr is in units of AdamW's: an update has the root mean square of AdamW's usual ones. Parameters: 2-D, or 3-D
    stacks of matrices.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                shapes[parameter.shape[-2:]].append(parameter)
            for shape, parameters in shapes.items():
                updates = []
                for parameter in parameters:
                    state, gradient = self.state[parameter], parameter.grad
                    assert gradient is not None, "every matrix takes part in every step"
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(parameter)
                    state["momentum"].lerp_(gradient, 1 - group["momentum"])
                    updates.append(gradient.lerp(state["momentum"], group["momentum"]).view(-1, *shape))
                update = orthogonal(torch.cat(updates)) * (0.2 * max(shape) ** 0.5)
                for parameter, own in zip(parameters, update.split([len(u) for u in updates]), strict=True):
                    parameter.mul_(1 - group["lr"] * group["decay"])
                    parameter.sub_(own.view_as(parameter), alpha=group["lr"])
