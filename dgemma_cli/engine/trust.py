"""Trust in the kernels of a GPU: what they compute there is compared with plain torch, once, before it is relied on.

Remembered in kernels.json, in the user's cache folder: for this card, these versions, this code and a model of this
shape, and the tiles it works in. Whoever deletes it has them compared again. Steps that could not be recorded are tried
again each time, since another driver may be able to; a comparison that there was no memory for is made when there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dgemma_cli.engine import remembered
from dgemma_cli.engine.comparison import compare, recorded_as_called
from dgemma_cli.engine.keys import key_of
from dgemma_cli.engine.remembered import COMPARISONS
from dgemma_cli.engine.tiles import drop_tiles, settle_tiles, tiles_in_use
from dgemma_cli.engine.trouble import recover, words
from dgemma_cli.errors import UsageError
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.kernel_terms import VARIABLE, asked_kernels
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls

_CODE = ("kernels", "model", "engine", "sampling")  # what a step's results hang on

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Known:
    """network: the relative distance of its outputs from plain torch; recorded: recorded steps are as called ones."""

    network: float
    recorded: bool


def proven(model: Model, tell: Tell | None = None, begin: Tell | None = None) -> Model:
    """``model``, if its kernels compute on its device what plain torch does there, or if it has none; else the plain
    model that it was made of. If only recording its steps fails, they are launched one by one.

    tell: is told in a line what is slower, and why. begin: is told that a comparison begins, which takes some seconds.
    Raises UsageError where Triton's kernels were asked for and cannot be trusted, NoDevice if the GPU does not recover
    from them.
    """
    if not isinstance(model, FusedModel):
        return model
    settle_tiles(model)
    return _proven(model, tell, begin)


def _proven(model: FusedModel, tell: Tell | None, begin: Tell | None) -> Model:
    key = _key(model)
    known = _read(key)
    if known is None:
        if begin is not None:
            begin("a first time on this GPU: kernels are compiled, and compared with plain torch")
        try:
            found = compare(model)
        except torch.OutOfMemoryError:
            _tidy(model)
            model.kernels += ", not compared with plain torch: no memory for it"
            return model
        except Exception as error:  # a compiler, a driver: whatever each of them may raise
            return _distrusted(model, words(error), tell)
        if found.wrong is not None:
            return _distrusted(model, f"beside plain torch {found.wrong}", tell)
        known = _Known(found.network, recorded=False)
    if not known.recorded:
        trouble = _recording(model)
        remembered.remember(COMPARISONS, key, asdict(_Known(known.network, trouble is None)))
        if trouble is not None:
            recover(model.device, trouble)
            _launch_one_by_one(model, trouble, tell)
        _tidy(model)
    model.kernels += f", {known.network:.1%} from plain torch"
    return model


def _recording(model: FusedModel) -> str | None:
    """Why the model's steps cannot be recorded, if so."""
    try:
        return None if recorded_as_called(model) else "recorded ones differ"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a driver, or a library that waits for the device
        return words(error)


def _launch_one_by_one(model: FusedModel, trouble: str, tell: Tell | None) -> None:
    recorder, calls = model.executor.name, Calls()
    model.run_by(calls)
    model.kernels = model.kernels.replace(recorder, f"{calls.name} ({trouble})")
    if tell is not None:
        tell(f"slower: steps are launched one by one, since {trouble}")


def _distrusted(model: FusedModel, trouble: str, tell: Tell | None) -> Model:
    if drop_tiles(model):
        recover(model.device, trouble)
        if tell is not None:
            tell(f"slower: the tiles measured on this card are forgotten, since {trouble}")
        return _proven(model, tell, None)
    if asked_kernels() == "triton":
        raise UsageError(
            f"{VARIABLE} asks for Triton's kernels, but {trouble}.", f"Unset {VARIABLE}, or set it to reference."
        )
    recover(model.device, trouble)
    plain = model.origin
    plain.kernels += f": {trouble}"
    if tell is not None:
        tell(f"slower: plain torch computes instead of Triton's kernels, since {trouble}")
    _tidy(plain)
    return plain


def _tidy(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


def _key(model: FusedModel) -> str:
    """What the results of its kernels hang on."""
    named = [*model.named_parameters(), *model.named_buffers()]
    tensors = [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in named]
    return key_of(model.device, _CODE, model.kernels, sorted(tiles_in_use(model).items()), model.config, tensors)


def _read(key: str) -> _Known | None:
    """None if nothing is known, or what stands there is no good."""
    entry: Any = remembered.read(COMPARISONS).get(key)
    try:
        return _Known(float(entry["network"]), entry["recorded"] is True)
    except (ValueError, TypeError, KeyError):
        return None
