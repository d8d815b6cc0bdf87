"""The result of a run in other forms: what they are, and their lines in the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnxadmm.bench.byte_products import byte_products_are_exact
from onnxadmm.bench.simd import Machine
from onnxadmm.graph.model import Model
from onnxadmm.report.report import Column, LatencyLine, VariantLine
from onnxadmm.report.variants import find_losses, gain_in_words


@dataclass(frozen=True)
class Variant:
    """A model that holds the numbers of another one in another form.

    Attributes:
        name: of the form; ``"int8"``: rounded to bytes.
        model: as it was written.
        floats: names of the operators that kept their floats, the one that gained most first.
        told: what was said while it was made, one sentence each.
    """

    name: Literal["int8"]
    model: Model
    floats: tuple[str, ...]
    told: tuple[str, ...]


def variant_line(
    variant: Variant, figures: Column, *, floats: Column, latency: Sequence[LatencyLine], machine: Machine
) -> tuple[VariantLine, tuple[str, ...]]:
    """Return the line of a variant in the report, and what to warn of.

    Args:
        figures: of the variant.
        floats: those of the model that it was made from.
        latency: the variant against that model.
        machine: they were timed on.
    """
    told = (gain_in_words(floats, figures, latency), *variant.told)
    line = VariantLine(variant.name, figures, variant.floats, tuple(latency), told)
    return line, losses_of_bytes(figures, floats=floats, latency=latency, machine=machine)


def losses_of_bytes(
    figures: Column, *, floats: Column, latency: Sequence[LatencyLine], machine: Machine
) -> tuple[str, ...]:
    """Say where a model in bytes is worse than the one it was made from; arguments as for ``variant_line``."""
    vectors = machine.simd if byte_products_are_exact() else f"{machine.simd} without VNNI"
    return find_losses(floats, figures, latency, vectors=vectors)
