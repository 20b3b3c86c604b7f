"""What a pass over static buffers is made of: the seam between the network's order of things and how they are computed.

None of the functions reads a number back to the host, and none has shapes that hang on one: they may be recorded once
and run again. ``plain`` does all of it in torch; ``fast`` in Triton, each kernel with its contract in its own file.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from dgemma_cli.kernels.packed import Packed, PackedExperts


class Sampled(NamedTuple):
    """Of the logits of a canvas [C, V]. draft: argmax ids, int64 [C]; entropy: nats, float32 [C]; picked: an id drawn
    for each position, int64 [C]; probabilities: softmax(logits / T), [C, V].
    """

    draft: Tensor
    entropy: Tensor
    picked: Tensor
    probabilities: Tensor


class Sample(Protocol):
    def __call__(self, scores: Tensor, cap: float, temperature: Tensor, uniform: Tensor) -> Sampled:
        """scores: [C, V] of the head before its cap; temperature: float32 [1]; uniform: float32 [C] in [0, 1), one
        number for the draw of each position, as ``sampling.draws.pick_by_inverse_cdf`` draws.
        """
        ...


class Advance(Protocol):
    def __call__(
        self,
        numbers: Tensor,
        eos: Tensor,
        previous: Tensor,
        unchanged: Tensor,
        draft: Tensor,
        entropy: Tensor,
        picked: Tensor,
        noise: Tensor,
        canvas: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """A step's decisions by the tensors of ``sampling.rules.Rules``, which are the first four. canvas: int64 [C],
        becomes the next step's: picked where accepted, else noise. Returns what is accepted, bool [C], and whether to
        stop, bool [1].
        """
        ...


class Operations(Protocol):
    """N tokens of one sequence. Keys and values are in buffers [kv_heads, capacity, d]; int32 [1] tensors hold what
    differs from pass to pass.

    What a product reads may be laid out for it: in the planes that ``planes`` says for its module, [N, planes,
    K / planes] for [N, K] (see ``words``). ``linear``, ``mlp`` and ``experts`` take either, and raise for another
    number of planes; what is asked for rows "in planes" gives them so. One plane is plain rows, which all else takes.
    """

    name: str  # for people to read

    @property
    def sample(self) -> Sample | None:
        """None: the functions of ``sampling`` do it."""
        ...

    @property
    def advance(self) -> Advance | None:
        """None: the rules themselves do it."""
        ...

    def planes(self, module: nn.Module) -> int:
        """In how many planes a linear map, or a layer's experts, read best. An MLP reads as its ``gate_up_proj``."""
        ...

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        """x @ W.T for a linear map of any format: [N, columns] -> [N, rows]."""
        ...

    def mlp(self, x: Tensor, module: nn.Module) -> Tensor:
        """``model.experts.MLP``: [N, hidden] -> [N, hidden]."""
        ...

    def experts(self, x: Tensor, module: nn.Module, weights: Tensor, experts: Tensor) -> Tensor:
        """weight * expert(x) of each token and each of its experts: [N, hidden] -> [N * k, hidden]."""
        ...

    def scores(self, hidden: Tensor, embedding: nn.Module) -> Tensor:
        """hidden @ W.T for the embedding as head: [N, hidden] -> [N, V]."""
        ...

    def mean(self, probabilities: Tensor, embedding: nn.Module) -> Tensor:
        """The mean row of the embedding under each distribution: [..., V] -> [..., hidden]."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor | None, eps: float, planes: int = 1) -> Tensor:
        """Each row over its root mean square, times ``weight`` if there is one. In planes."""
        ...

    def residual_norms(
        self,
        x: Tensor,
        attended: Tensor,
        post_weight: Tensor,
        dense_weight: Tensor,
        routed_weight: Tensor,
        router_weight: Tensor,
        eps: float,
        dense_planes: int = 1,
        routed_planes: int = 1,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x' = x + norm(attended) * post_weight, and norm(x') times each of the three other weights; the first two of
        these in planes.
        """
        ...

    def combine(
        self,
        x: Tensor,
        dense: Tensor,
        routed: Tensor,
        dense_weight: Tensor,
        routed_weight: Tensor,
        post_weight: Tensor,
        scalar: Tensor,
        next_weight: Tensor,
        eps: float,
        next_planes: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """The end of a layer: x' = (x + norm(norm(dense) + norm(sum of routed))) * scalar with a weight to each norm,
        and norm(x') * next_weight, in planes. routed: [N * k, hidden]; scalar: [1].
        """
        ...

    def split_heads(
        self,
        qkv: Tensor,
        heads: int,
        kv_heads: int,
        q_norm: Tensor,
        k_norm: Tensor,
        cos: Tensor,
        sin: Tensor,
        k: Tensor,
        v: Tensor,
        start: Tensor,
        eps: float,
    ) -> Tensor:
        """Norms and rotates the heads of a fused projection, [N, rows]; writes keys and values to the positions from
        ``start`` on and returns the queries, [N, heads, d].

        cos, sin: float32 [N, d / 2]. Where there are no rows for values, they are the raw keys.
        """
        ...

    def attend_canvas(self, q: Tensor, k: Tensor, v: Tensor, first: Tensor, start: Tensor, planes: int = 1) -> Tensor:
        """Every query [N, heads, d] sees the positions first to start + N - 1. [N, heads * d] in planes; scale 1."""
        ...

    def attend_causal(
        self, q: Tensor, k: Tensor, v: Tensor, start: Tensor, window: int | None, planes: int = 1
    ) -> Tensor:
        """Query i looks at the last ``window`` positions up to start + i, or at all. [N, heads * d] in planes."""
        ...

    def route(self, scores: Tensor, top_k: int, per_expert_scale: Tensor) -> tuple[Tensor, Tensor]:
        """As ``reference.route``: weights and expert ids, [N, k] each."""
        ...


Matrices = Packed | Tensor


def expert_matrices(module: nn.Module) -> tuple[Matrices, Matrices]:
    """gate_up and down of a layer's experts: packed, or [E, 2 I, hidden] and [E, hidden, I]."""
    if isinstance(module, PackedExperts):
        return module.gate_up, module.down
    return module.gate_up_proj, module.down_proj  # type: ignore[return-value]
