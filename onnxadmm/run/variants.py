"""The result of a run in other forms: what they are, and their lines in the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxadmm.bench.byte_products import byte_products_are_exact
from onnxadmm.bench.simd import Machine
from onnxadmm.graph.model import Model, from_proto, load, save, to_proto
from onnxadmm.report.report import Column, LatencyLine, VariantLine
from onnxadmm.report.variants import Form, find_losses, gain_in_words


@dataclass(frozen=True)
class Variant:
    """A model that holds the numbers of another one in another form.

    Attributes:
        name: of the form; ``"int8"``: rounded to bytes; ``"fp16"``: weights of 16 bits that are read as 32.
        model: as it was written.
        floats: names of the operators that kept their floats, the one that gained most first; with ``"fp16"`` of the
            weights.
        told: what was said while it was made, one sentence each.
    """

    name: Form
    model: Model
    floats: tuple[str, ...]
    told: tuple[str, ...]


def variant_line(
    variant: Variant, figures: Column, *, plain: Column, latency: Sequence[LatencyLine], machine: Machine
) -> tuple[VariantLine, tuple[str, ...]]:
    """Return the line of a variant in the report, and what to warn of.

    Args:
        figures: of the variant.
        plain: those of the model that it was made from.
        latency: the variant against that model.
        machine: they were timed on.
    """
    told = (gain_in_words(variant.name, plain, figures, latency), *variant.told)
    line = VariantLine(variant.name, figures, variant.floats, tuple(latency), told)
    return line, losses_of(variant.name, figures, plain=plain, latency=latency, machine=machine)


def losses_of(
    form: Form, figures: Column, *, plain: Column, latency: Sequence[LatencyLine], machine: Machine
) -> tuple[str, ...]:
    """Say where a model is worse in some form than the one it was made from; arguments as for ``variant_line``."""
    lacking = form == "int8" and not byte_products_are_exact()
    vectors = f"{machine.simd} without VNNI" if lacking else machine.simd
    return find_losses(form, plain, figures, latency, vectors=vectors)


def as_written(model: Model, path: Path | None, *, single_file: bool = False) -> Model:
    """Write a model, and read it; None writes nothing.

    Raises:
        OutputError: the file cannot be written.
    """
    if path is None:
        return from_proto(to_proto(model))
    save(model, path, single_file=single_file)
    return load(path)
