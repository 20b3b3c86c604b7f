"""Trust in the kernels of a GPU: what they compute there is compared with plain torch, once, before it is relied on.

Remembered in kernels.json, in the user's cache folder: for this card, these versions, this code and a model of this
shape. Whoever deletes it has them compared again. Steps that could not be recorded are tried again each time, since
another driver may be able to; a comparison that there was no memory for is made when there is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import platformdirs
import torch

import dgemma_cli
from dgemma_cli.engine.comparison import compare, recorded_as_called
from dgemma_cli.errors import NoDevice, UsageError
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.kernel_terms import VARIABLE, asked_kernels
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls

_MESSAGE = 160  # characters of a foreign message that are passed on
_CODE = ("kernels", "model", "engine", "sampling")  # what a step's results hang on
_WITHOUT = f"Without Triton's kernels, slower: {VARIABLE}=reference"

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
    key, file = _key(model), platformdirs.user_cache_path("dgemma") / "kernels.json"
    known = _read(file).get(key)
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
            return _distrusted(model, _words(error), tell)
        if found.wrong is not None:
            return _distrusted(model, f"beside plain torch {found.wrong}", tell)
        known = _Known(found.network, recorded=False)
    if not known.recorded:
        trouble = _recording(model)
        _remember(file, key, _Known(known.network, trouble is None))
        if trouble is not None:
            _recover(model, trouble)
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
        return _words(error)


def _launch_one_by_one(model: FusedModel, trouble: str, tell: Tell | None) -> None:
    recorder, calls = model.executor.name, Calls()
    model.run_by(calls)
    model.kernels = model.kernels.replace(recorder, f"{calls.name} ({trouble})")
    if tell is not None:
        tell(f"slower: steps are launched one by one, since {trouble}")


def _distrusted(model: FusedModel, trouble: str, tell: Tell | None) -> Model:
    if asked_kernels() == "triton":
        raise UsageError(
            f"{VARIABLE} asks for Triton's kernels, but {trouble}.", f"Unset {VARIABLE}, or set it to reference."
        )
    _recover(model, trouble)
    plain = model.origin
    plain.kernels += f": {trouble}"
    if tell is not None:
        tell(f"slower: plain torch computes instead of Triton's kernels, since {trouble}")
    _tidy(plain)
    return plain


def _recover(model: Model, trouble: str) -> None:
    """Raises NoDevice if the device computes nothing more: what broke it breaks all that comes after it."""
    try:
        torch.zeros(1, device=model.device).item()
    except RuntimeError:
        raise NoDevice(f"Triton's kernels broke off on {model.device}: {trouble}.", _WITHOUT) from None


def _tidy(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_MESSAGE]}"


def _key(model: FusedModel) -> str:
    """What the results of its kernels hang on."""
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update(repr(parts).encode())

    package = Path(dgemma_cli.__file__).parent
    for folder in _CODE:
        for file in sorted((package / folder).glob("*.py")):
            digest.update(file.read_bytes())
    add(torch.__version__, torch.version.cuda, _triton(), model.kernels, model.config)
    if model.device.type == "cuda":
        add(torch.cuda.get_device_name(model.device), torch.cuda.get_device_capability(model.device))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        add(name, tuple(tensor.shape), tensor.dtype)
    return digest.hexdigest()


def _triton() -> str | None:
    if find_spec("triton") is None:
        return None
    import triton

    return str(triton.__version__)


def _read(file: Path) -> dict[str, _Known]:
    """Nothing if there is no such file, or it is no good."""
    try:
        read = json.loads(file.read_text())
        return {str(key): _Known(float(value["network"]), value["recorded"] is True) for key, value in read.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}


def _remember(file: Path, key: str, known: _Known) -> None:
    """Where it cannot be written the comparison is made again next time."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w") as new:
            json.dump({each: asdict(entry) for each, entry in (_read(file) | {key: known}).items()}, new, indent=1)
        Path(name).replace(file)
