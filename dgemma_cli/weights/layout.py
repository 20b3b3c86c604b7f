"""Names and shapes of the published checkpoints, and where each tensor goes in the model. Imports no torch.

The stack is stored once, under ``model.decoder``; the head is tied to the embedding; the encoder adds only its own
layer scalars and the vision tower. Matrices of one input share one fused parameter, each fills some of its rows; so do
packed ones of one format. Others keep a place of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dgemma_cli.errors import CheckpointError
from dgemma_cli.model.config import LayerConfig, ModelConfig
from dgemma_cli.weights.formats import PLAIN_DTYPES, Format, Int4Format, Int8Format, NVFP4Format, Part
from dgemma_cli.weights.scheme import Kind, Scheme

# What a checkpoint may hold that a text model does not use. Nothing else may be left over.
VISION_PREFIXES = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
# Some savers write the tied head out as well; it must then equal the embedding.
TIED_HEAD = "lm_head.weight"
_EMBEDDING = "model.decoder.embed_tokens"
EMBEDDING = f"{_EMBEDDING}.weight"


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of the checkpoint and its place: ``tensor``, ``part`` (its shape there, the dtypes it may have) and
    ``target``, a parameter or buffer of the model, of which it fills the rows from ``first_row`` on of the element
    ``place``. target "": it is known, and not loaded.
    """

    tensor: str
    part: Part
    target: str = ""
    place: tuple[int, ...] = ()
    first_row: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stored tensor."""
        return self.part.shape


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix [rows, columns] of the network as a checkpoint holds it. name: of its module there.

    format: None is plain numbers: the rows from ``first_row`` on of ``tensor``, all of whose dimensions but the last
    count as rows. together: the module of the model that it is a part of, whose other parts read the same inputs.
    """

    name: str
    rows: int
    columns: int
    together: str
    format: Format | None
    tensor: str = ""
    first_row: int = 0


@dataclass(frozen=True, slots=True)
class PackedLinearSpec:
    """A linear map of ``columns`` inputs whose stacked parts are packed apart: (rows, format or None for plain).

    stack: how many matrices of so many rows each part is, with a matrix scale each.
    """

    columns: int
    parts: tuple[tuple[int, Format | None], ...]
    stack: int = 1


@dataclass(frozen=True, slots=True)
class PackedExpertsSpec:
    """A layer's packed experts: the formats of gate and up, and of down."""

    gate_up: Format
    down: Format


@dataclass(frozen=True, slots=True)
class PackedEmbeddingSpec:
    """The packed embedding, [rows, columns]."""

    rows: int
    columns: int
    format: Int8Format


@dataclass(slots=True)
class Plan:
    """Everything a checkpoint must hold, and the modules (by their names in the model) that its packed parts need.

    matrices: by name, all that a format may pack.
    """

    slots: list[Slot] = field(default_factory=list)
    matrices: dict[str, Matrix] = field(default_factory=dict)
    packed: dict[str, PackedLinearSpec | PackedExpertsSpec | PackedEmbeddingSpec] = field(default_factory=dict)


DtypeOf = Callable[[str], str | None]


def make_plan(config: ModelConfig, scheme: Scheme, dtype_of: DtypeOf, one_expert: bool = False) -> Plan:
    """The plan of a checkpoint of this configuration and scheme. one_expert: of those that are stored one by one, all
    of which are alike, it holds the first of each layer.

    dtype_of: the stored dtype of a tensor, None if there is none; it decides only between equal layouts: experts stored
    one by one or fused, and the number format of INT4 scales. Raises CheckpointError if the scheme cannot be met.
    """
    return _Planner(config, scheme, dtype_of, one_expert).run()


class _Planner:
    def __init__(self, config: ModelConfig, scheme: Scheme, dtype_of: DtypeOf, one_expert: bool) -> None:
        self.config = config
        self.scheme = scheme
        self.dtype_of = dtype_of
        self.one_expert = one_expert
        self.plan = Plan()

    def run(self) -> Plan:
        config = self.config
        hidden, inner = config.hidden_size, config.intermediate_size
        self._embedding(config.vocab_size, hidden)
        self._plain("model.decoder.self_conditioning.pre_norm.weight", (hidden,), "self_conditioning.pre_norm.weight")
        self._mlp("model.decoder.self_conditioning.", "self_conditioning.mlp.", hidden, inner)
        for index, layer in enumerate(config.layers):
            self._layer(layer, f"model.decoder.layers.{index}.", f"stack.layers.{index}.")
            self._plain(
                f"model.encoder.language_model.layers.{index}.layer_scalar",
                (1,),
                f"stack.layers.{index}.encoder_scalar",
            )
        self._plain("model.decoder.norm.weight", (hidden,), "stack.norm.weight")
        return self.plan

    def _layer(self, layer: LayerConfig, theirs: str, ours: str) -> None:
        hidden = self.config.hidden_size
        q_rows, kv_rows = layer.num_heads * layer.head_dim, layer.num_kv_heads * layer.head_dim
        stacked = [("self_attn.q_proj", q_rows), ("self_attn.k_proj", kv_rows)]
        if layer.sliding:
            stacked.append(("self_attn.v_proj", kv_rows))
        self._linear(f"{ours}self_attn.qkv_proj", [(theirs + name, rows) for name, rows in stacked], hidden)
        self._linear(f"{ours}self_attn.o_proj", [(f"{theirs}self_attn.o_proj", hidden)], q_rows)
        self._mlp(f"{theirs}mlp.", f"{ours}mlp.", hidden, self.config.intermediate_size)
        self._linear(f"{ours}router.proj", [(f"{theirs}router.proj", self.config.num_experts)], hidden)
        same = {
            "self_attn.q_norm.weight": layer.head_dim,
            "self_attn.k_norm.weight": layer.head_dim,
            "input_layernorm.weight": hidden,
            "post_attention_layernorm.weight": hidden,
            "pre_feedforward_layernorm.weight": hidden,
            "pre_feedforward_layernorm_2.weight": hidden,
            "post_feedforward_layernorm_1.weight": hidden,
            "post_feedforward_layernorm_2.weight": hidden,
            "post_feedforward_layernorm.weight": hidden,
            "router.scale": hidden,
            "router.per_expert_scale": self.config.num_experts,
        }
        for name, size in same.items():
            self._plain(theirs + name, (size,), ours + name)
        self._experts(f"{theirs}experts.", f"{ours}experts")
        self._plain(f"{theirs}layer_scalar", (1,), f"{ours}decoder_scalar")

    def _embedding(self, rows: int, columns: int) -> None:
        form = self._format(_EMBEDDING, columns, "Embedding")
        if form is None:
            self._plain(EMBEDDING, (rows, columns), "embed_tokens.weight")
            self._matrix(_EMBEDDING, rows, columns, "embed_tokens", None, EMBEDDING)
            return
        if not isinstance(form, Int8Format):
            raise CheckpointError(f"{_EMBEDDING} is in {form.label}; dgemma reads plain embeddings and int8 ones.")
        self.plan.packed["embed_tokens"] = PackedEmbeddingSpec(rows, columns, form)
        self._packed(_EMBEDDING, form, rows, columns, "embed_tokens.matrix", (0, 0), "embed_tokens")

    def _mlp(self, theirs: str, ours: str, hidden: int, inner: int) -> None:
        both = [(f"{theirs}gate_proj", inner), (f"{theirs}up_proj", inner)]
        self._linear(f"{ours}gate_up_proj", both, hidden)
        self._linear(f"{ours}down_proj", [(f"{theirs}down_proj", hidden)], inner)

    def _plain(
        self, tensor: str, shape: tuple[int, ...], target: str, place: tuple[int, ...] = (), first_row: int = 0
    ) -> None:
        part = Part("", PLAIN_DTYPES, shape)
        self.plan.slots.append(Slot(tensor, part, target, place, first_row))

    def _linear(self, ours: str, stacked: list[tuple[str, int]], columns: int) -> None:
        """A linear map: one parameter if all of its parts are plain, one packed matrix if they are of one format,
        otherwise a module for each part.
        """
        formats = [self._format(module, columns) for module, _ in stacked]
        if not any(formats):
            first_row = 0
            for module, rows in stacked:
                self._plain(f"{module}.weight", (rows, columns), f"{ours}.weight", first_row=first_row)
                self._matrix(module, rows, columns, ours, None, f"{module}.weight")
                first_row += rows
            return
        heights = [rows for _, rows in stacked]
        one = formats[0]
        if one is not None and len(set(formats)) == 1:
            scaled = isinstance(one, NVFP4Format)  # as a whole: parts of different heights cannot tell whose scale
            if not scaled or len(set(heights)) == 1:
                stack = len(stacked) if scaled else 1
                self.plan.packed[ours] = PackedLinearSpec(columns, ((sum(heights) // stack, one),), stack)
                for index, (module, rows) in enumerate(stacked):
                    place, first_row = ((0, index), 0) if scaled else ((0, 0), sum(heights[:index]))
                    self._packed(module, one, rows, columns, f"{ours}.matrix", place, ours, first_row)
                return
        parts = tuple(zip(heights, formats, strict=True))
        self.plan.packed[ours] = PackedLinearSpec(columns, parts)
        for index, ((module, rows), form) in enumerate(zip(stacked, formats, strict=True)):
            own = ours if len(stacked) == 1 else f"{ours}.parts.{index}"
            if form is None:
                self._plain(f"{module}.weight", (rows, columns), f"{own}.weight")
                self._matrix(module, rows, columns, ours, None, f"{module}.weight")
            else:
                self._packed(module, form, rows, columns, f"{own}.matrix", (0, 0), ours)

    def _matrix(
        self,
        name: str,
        rows: int,
        columns: int,
        together: str,
        form: Format | None,
        tensor: str = "",
        first_row: int = 0,
    ) -> None:
        self.plan.matrices[name] = Matrix(name, rows, columns, together, form, tensor, first_row)

    def _packed(
        self,
        module: str,
        form: Format,
        rows: int,
        columns: int,
        target: str,
        place: tuple[int, int],
        together: str,
        first_row: int = 0,
    ) -> None:
        self._matrix(module, rows, columns, together, form)
        for part in form.parts(rows, columns):
            goes_to = f"{target}.{part.buffer}" if part.buffer else ""
            self.plan.slots.append(Slot(f"{module}.{part.name}", part, goes_to, place, first_row))

    def _experts(self, theirs: str, ours: str) -> None:
        """All experts of a layer: packed ones and some plain ones are stored one by one, other plain ones fused."""
        count, hidden, inner = self.config.num_experts, self.config.hidden_size, self.config.moe_intermediate_size
        gate_up = self._common(theirs, ("gate_proj", "up_proj"), hidden)
        down = self._common(theirs, ("down_proj",), inner)
        if (gate_up is None) != (down is None):
            raise CheckpointError(f"{theirs}*: packed in part, which dgemma cannot load.")
        alone = self.dtype_of(f"{theirs}0.gate_proj.weight") is not None
        if gate_up is not None and down is not None:
            self.plan.packed[ours] = PackedExpertsSpec(gate_up, down)
        elif not alone:
            self._plain(f"{theirs}gate_up_proj", (count, 2 * inner, hidden), f"{ours}.gate_up_proj")
            self._plain(f"{theirs}down_proj", (count, hidden, inner), f"{ours}.down_proj")
        for expert in range(1 if self.one_expert else count):
            for name, form, rows, columns, where, stacked in (
                ("gate_proj", gate_up, inner, hidden, "gate_up", 0),
                ("up_proj", gate_up, inner, hidden, "gate_up", 1),
                ("down_proj", down, hidden, inner, "down", 0),
            ):
                module, together = f"{theirs}{expert}.{name}", f"{ours}.{expert}.{where}"
                if form is not None:
                    self._packed(module, form, rows, columns, f"{ours}.{where}", (expert, stacked), together)
                elif alone:
                    tensor, first_row = f"{module}.weight", stacked * rows
                    self._plain(tensor, (rows, columns), f"{ours}.{where}_proj", (expert,), first_row)
                    self._matrix(module, rows, columns, together, None, tensor)
                else:
                    height = 2 if where == "gate_up" else 1  # matrices of one expert in the tensor of all
                    first_row = (expert * height + stacked) * rows
                    self._matrix(module, rows, columns, together, None, f"{theirs}{where}_proj", first_row)

    def _common(self, theirs: str, names: tuple[str, ...], columns: int) -> Format | None:
        """The one format of these matrices of every expert."""
        found = {
            self.scheme.format_of(f"{theirs}{expert}.{name}")
            for expert in range(self.config.num_experts)
            for name in names
        }
        if len(found) > 1:
            raise CheckpointError(f"{theirs}*.{names[0]}: some experts are packed and some are not.")
        return self._format(f"{theirs}0.{names[0]}", columns)

    def _format(self, module: str, columns: int, kind: Kind = "Linear") -> Format | None:
        form = self.scheme.format_of(module, kind)
        if form is None:
            return None
        if columns % form.group:
            raise CheckpointError(f"{module} has {columns} inputs, no multiple of the {form.group} that share a scale.")
        stored = self.dtype_of(f"{module}.weight_scale")
        if isinstance(form, Int4Format | Int8Format) and stored in ("BF16", "F16"):
            return replace(form, scale_dtype=stored)
        return form
