"""What of a checkpoint is packed anew, and how. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dgemma_cli.weights.formats import Format, Int4Format, Int8Format, NVFP4Format
from dgemma_cli.weights.scheme import Kind, Scheme

# Where a part of the network stands in the names of a checkpoint.
PARTS = {
    "experts": ".experts.",
    "attention": ".self_attn.",
    "mlp": ".mlp.",
    "self-conditioning": ".self_conditioning.",
    "embedding": ".embed_tokens",
}
FOUR_BITS: dict[str, Format] = {"nvfp4": NVFP4Format(compressed=True), "int4": Int4Format()}


def part_of(name: str) -> str | None:
    """The part of the network, a key of PARTS, that a matrix or tensor belongs to; None for the router and norms."""
    return next((part for part, mark in PARTS.items() if mark in name), None)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The formats that parts of a network get: the experts; attention and MLP; self-conditioning and embedding.

    None leaves a part as it is stored, and so does a format with no fewer bits than it is stored with.
    """

    experts: Format | None = None
    dense: Format | None = None
    ends: Format | None = None

    def format_for(self, name: str) -> Format | None:
        """What the matrix ``name`` is to be, None for as it is."""
        match part_of(name):
            case "experts":
                return self.experts
            case "attention" | "mlp":
                return self.dense
            case "self-conditioning" | "embedding":
                return self.ends
        return None

    def over(self, stored: Scheme, one_method: bool = False) -> Scheme:
        """The scheme of a checkpoint that is stored in another one, packed anew.

        one_method: all as compressed-tensors has it, which knows every format: ModelOpt's NVFP4 is renamed.
        """
        return Repacked(stored.groups, stored.ignore, self, one_method)

    def __str__(self) -> str:
        """In words: "experts nvfp4, dense int4, embedding int8"."""
        named = (("experts", self.experts), ("attention and MLP", self.dense), ("embedding", self.ends))
        return ", ".join(f"{part} {form.label.split()[0]}" for part, form in named if form is not None) or "as stored"


@dataclass(frozen=True, slots=True)
class Repacked(Scheme):
    """A stored scheme with a recipe over it."""

    recipe: Recipe = Recipe()
    one_method: bool = False

    def format_of(self, module: str, kind: Kind = "Linear") -> Format | None:
        """The format that the matrix called ``module`` gets."""
        stored, wanted = Scheme.format_of(self, module, kind), self.recipe.format_for(module)
        if wanted is not None and (stored is None or stored.bits > wanted.bits):
            return wanted
        if self.one_method and isinstance(stored, NVFP4Format):
            return replace(stored, compressed=True)
        return stored


AS_STORED = Recipe()


def recipe(experts: str | None = None, dense: str | None = None) -> Recipe:
    """experts: None, "nvfp4" or "int4"; dense: None, "8bit", or "4bit", which is the experts' format or NVFP4.

    With ``dense`` the embedding and the self-conditioning have 8 bits.
    """
    four = FOUR_BITS[experts or "nvfp4"]
    return Recipe(
        experts=four if experts else None,
        dense={None: None, "8bit": Int8Format(), "4bit": four}[dense],
        ends=Int8Format() if dense else None,
    )
