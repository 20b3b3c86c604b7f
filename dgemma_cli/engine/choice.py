"""Which loop runs the steps of a reply's canvases: decided once, and told."""

from __future__ import annotations

from dgemma_cli.engine.denoise import Denoiser, denoise
from dgemma_cli.engine.graphed import graphed
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.sampler import Sampler
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls


def choose(model: Model, options: Options) -> tuple[Denoiser, str]:
    """The loop, and in words which it is and why."""
    if not isinstance(model, FusedModel):
        return denoise, "plain"
    if options.held:
        return denoise, "plain: text is held"
    if Sampler.resolve(options, model.defaults).best_of > 1:
        return denoise, "plain: several canvases side by side"
    recorded = f"recorded ({model.executor.name})" if not isinstance(model.executor, Calls) else "launched one by one"
    return graphed, recorded + ("; plain where --repair writes again" if options.repair else "")
