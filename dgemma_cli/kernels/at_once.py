"""Functions of several operations that let go of Python's lock once, not after each of them: TorchScript runs them.

After every operation a thread asks for the lock. Where a crew's threads all do, who has to wait is woken some 25 us
late, which is longer than many of the operations take.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from functools import cache, wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def at_once(
    function: Callable[Concatenate[Tensor, P], T], *called: Callable[..., object]
) -> Callable[Concatenate[Tensor, P], T]:
    """The same function, as one call where its first argument is on a CPU and no gradients are asked for: with the same
    results to the bit. ``__wrapped__`` is the plain one.

    It may use tensors, numbers, lists of these, operations of torch and the functions ``called``, by their own names:
    no other names. It is compiled when it is first called.
    """

    @cache
    def compiled() -> Callable[Concatenate[Tensor, P], T]:
        sources = [textwrap.dedent(inspect.getsource(each)) for each in (*called, function)]
        # torch.jit.script would take the functions themselves, and warns that it will go; this reads the same language.
        unit = torch.jit.CompilationUnit("\n".join(source[source.index("def ") :] for source in sources))
        found: Callable[Concatenate[Tensor, P], T] = getattr(unit, function.__name__)
        return found

    @wraps(function)
    def run(first: Tensor, *others: P.args, **named: P.kwargs) -> T:
        chosen = compiled() if first.is_cpu and not torch.is_grad_enabled() else function
        return chosen(first, *others, **named)

    return cast(Callable[Concatenate[Tensor, P], T], run)
