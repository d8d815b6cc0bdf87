"""Pruning without training: find the groups, mask, shrink, verify; plans are made in ``planning``.

Every function takes a path or a loaded model; a plan is made for one model, known by the sha256 of its file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.bench.inputs import at_sizes_that_run, batch_is_free, random_inputs
from onnxadmm.bench.latency import LARGE, Latencies, measure_latency
from onnxadmm.console import listening
from onnxadmm.errors import PlanError
from onnxadmm.files import refuse_input
from onnxadmm.graph.model import Model, complaint, load, save
from onnxadmm.graph.model import Source as Source  # what the calls built on this module take as well
from onnxadmm.graph.probing import has_custom_operators
from onnxadmm.graph.simplify import simplify
from onnxadmm.graph.stated import with_input_shapes
from onnxadmm.graph.weights import give_back_pages
from onnxadmm.output import OutputFile
from onnxadmm.plan.plan import Plan
from onnxadmm.progress import SILENT, ProgressLike
from onnxadmm.rewrite.growth import refuse_growth
from onnxadmm.rewrite.mask import mask as mask_units
from onnxadmm.rewrite.mask import zero_connections
from onnxadmm.rewrite.related import refuse_unrelated
from onnxadmm.rewrite.shrink import shrink as shrink_units
from onnxadmm.rewrite.structure import misfit, retrained
from onnxadmm.rewrite.verify import DEFAULT_THRESHOLD_DB, Verification, prove, require
from onnxadmm.runtime.custom_ops import custom_operators, libraries_in_use
from onnxadmm.units.columns import with_columns
from onnxadmm.units.units import Units
from onnxadmm.units.units import find_units as find

InputShapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Planned:
    """A model with its plan applied as far as both sides of a comparison share it.

    Attributes:
        model: simplified where the plan was, pruned connections set to zero.
        units: its units.
        keep: which of them stay, bool ``[units.count]``.
    """

    model: Model
    units: Units
    keep: NDArray[np.bool_]


def find_groups(
    model: Source,
    *,
    inexact: bool = False,
    features: bool = False,
    ignore: Sequence[str] = (),
    input_shapes: InputShapes | None = None,
    custom_ops: Sequence[str | Path] = (),
) -> Units:
    """Find the groups of a model: those that may shrink, and why the others may not.

    Args:
        model: path or model.
        inexact: also prune through operators that mix along the removed axis.
        features: columns that a product reads behind a flattening are units of their own, in place of its channels.
        ignore: patterns of names of groups, layers or weights that must stay.
        input_shapes: whole shapes of inputs, by name, where the file leaves sizes free: costs are counted there.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Returns:
        ``groups``, each with its name, its ``count`` of units and the ``tensors`` they occupy, and ``locked``, each
        with a name and the ``reason``.

    Raises:
        ModelFileError: the file is not a readable ONNX model.
        OptionError: a pattern matches nothing.
        CustomOperatorError: a library cannot be used.

    Examples:
        ```python
        units = oa.find_groups("model.onnx", ignore=["conv1*"])
        for group in units.groups:
            print(group.name, group.count)
        for group in units.locked:
            print(group.name, "stays:", group.reason)
        ```
    """
    with custom_operators(custom_ops):
        ready = with_columns(opened(model, input_shapes), features=features, inexact=inexact)
        return find(ready, inexact=inexact, features=features, ignore=ignore)


def mask(
    model: Source, plan: Plan, *, input_shapes: InputShapes | None = None, custom_ops: Sequence[str | Path] = ()
) -> Model:
    """Return the masked original: the readers of removed units zero, and a Mul by zeros where activations are summed.

    Args:
        model: path or model.
        plan: what to remove.
        input_shapes: as for ``find_groups``.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Returns:
        The nodes, shapes and file size of the original, simplified where the plan was; with a Gather behind each
        flattening whose columns are units of their own.

    Raises:
        PlanError: the plan was made for another model.
        CustomOperatorError: a library cannot be used.

    Examples:
        ```python
        plan = oa.rank("model.onnx", ratio=0.5)
        oa.save(oa.mask("model.onnx", plan), "masked.onnx")
        ```
    """
    with custom_operators(custom_ops):
        planned = apply_plan(opened(model, input_shapes), plan)
        return mask_units(planned.model, planned.units, planned.keep)


def shrink(
    model: Source, plan: Plan, *, input_shapes: InputShapes | None = None, custom_ops: Sequence[str | Path] = ()
) -> Model:
    """Return the model without the units that the plan removes; it computes what ``mask`` computes.

    Args:
        model: path or model.
        plan: what to remove.
        input_shapes: as for ``find_groups``.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Returns:
        The smaller model, in memory; ``save`` writes it.

    Raises:
        PlanError: the plan was made for another model.
        CustomOperatorError: a library cannot be used.

    Examples:
        ```python
        plan = oa.rank("model.onnx", oa.Budget(params=0.3))
        small = oa.shrink("model.onnx", plan)
        oa.save(small, "small.onnx")
        ```
    """
    with custom_operators(custom_ops):
        planned = apply_plan(opened(model, input_shapes), plan)
        return shrink_units(planned.model, planned.units, planned.keep)


def shrink_to_file(
    model: Source,
    plan: Plan,
    path: Path,
    *,
    sparse: bool = True,
    single_file: bool = False,
    check: bool = True,
    seed: int = 0,
    inputs: Mapping[str, object] = MappingProxyType({}),
    force: bool = False,
    input_shapes: InputShapes | None = None,
    custom_ops: Sequence[str | Path] = (),
) -> tuple[int, Verification | None]:
    """Write the model without the units that the plan removes, once what was written is proven.

    Until then the file stands in a folder of its own beside its final place.

    Args:
        model: path or model.
        plan: what to remove.
        path: where to write.
        sparse: store weights of which the plan prunes connections sparsely, where that takes less room.
        single_file: write weights into the file, also where the model has external data.
        check: compare what was written with the masked original first.
        seed: of the random inputs.
        inputs: values of some inputs by name, the same for every sample; the others are random.
        force: replace a file of that name, and the external data beside it.
        input_shapes: as for ``find_groups``; the proof is made there.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Returns:
        Bytes written, external data included, and the verification, None when it was not asked for; it has not passed
        where the plan prunes, as asked, through operators that mix along the removed axis.

    Raises:
        PlanError: the plan was made for another model.
        VerificationError: what was written computes something else; it is gone again.
        OutputError: a file exists, or it cannot be written.
        CustomOperatorError: a library cannot be used.
    """
    refuse_input(path, model)
    with custom_operators(custom_ops):
        with OutputFile(path, force=force) as output:
            applied = apply_plan(opened(model, input_shapes), plan)
            inexact = applied.units.inexact
            small = shrink_units(applied.model, applied.units, applied.keep)
            refuse_growth(applied.model, small)
            size = save(small, output.work, sparse=tuple(plan.zeros) if sparse else False, single_file=single_file)
            del small
            del applied
            give_back_pages()
            proof = None
            if check:
                made = _prove(opened(model, input_shapes), load(output.work), plan, inputs=inputs, seed=seed)
                proof = require(made, inexact=inexact)
            output.publish()
        return size, proof


def verify(
    model: Source,
    shrunk: Source,
    plan: Plan,
    *,
    inputs: Mapping[str, object] | Sequence[Mapping[str, NDArray[Any]]] = MappingProxyType({}),
    threshold_db: float = DEFAULT_THRESHOLD_DB,
    seed: int = 0,
    input_shapes: InputShapes | None = None,
    custom_ops: Sequence[str | Path] = (),
    progress: ProgressLike = SILENT,
) -> Verification:
    """Run the masked original and the shrunk model on the same inputs and compare every output.

    The numbers of a model that was retrained after the cut differ by right. It does not pass; ``retrained`` then says
    that its structure is what the plan leaves.

    Args:
        model: the original.
        shrunk: what ``shrink`` made of it, retrained or not.
        plan: what was removed.
        inputs: values of some inputs by name, the same for every sample of random batches that fit the model; or, in
            a row, the batches to try, an array per input each.
        threshold_db: smallest signal-to-noise ratio that passes.
        seed: of the random inputs.
        input_shapes: whole shapes of inputs, by name, where the file leaves sizes free: random inputs have them.
        custom_ops: libraries of custom operators that onnxruntime registers.
        progress: told what happens, as for ``compress``.

    Returns:
        ``passed``, with the smallest signal-to-noise ratio ``snr_db``, the largest absolute error ``max_abs_error``,
        and where the first difference is if it did not pass.

    Raises:
        PlanError: the plan was made for another model.
        ModelFileError: ``shrunk`` was made from another model.
        CustomOperatorError: a library cannot be used.

    Examples:
        ```python
        plan = oa.rank("model.onnx", ratio=0.5)
        proof = oa.verify("model.onnx", oa.shrink("model.onnx", plan), plan)
        print(proof.passed, proof.snr_db)
        ```
    """
    with custom_operators(custom_ops), listening(progress) as told:
        told.stage("read models")
        original, small = opened(model, input_shapes), load(shrunk)
        refuse_unrelated(original, small)
        told.stage("compare outputs")
        proof = _prove(original, small, plan, inputs=inputs, threshold_db=threshold_db, seed=seed)
        if proof.passed:
            return proof
        told.stage("compare structures")
        return _with_structure(proof, original, small, plan)


def _prove(
    model: Model,
    shrunk: Model,
    plan: Plan,
    *,
    inputs: Mapping[str, object] | Sequence[Mapping[str, NDArray[Any]]],
    threshold_db: float = DEFAULT_THRESHOLD_DB,
    seed: int,
) -> Verification:
    planned = apply_plan(model, plan)
    masked = mask_units(planned.model, planned.units, planned.keep)

    def kept(name: str, shape: tuple[int, ...]) -> tuple[NDArray[np.int64] | None, ...] | None:
        return planned.units.positions(name, planned.keep, shape)

    def compared(feeds: Sequence[Mapping[str, NDArray[Any]]]) -> Verification:
        return prove(masked, shrunk, feeds, threshold_db=threshold_db, kept=kept)

    if not isinstance(inputs, Mapping):
        return compared(inputs)
    return at_sizes_that_run(planned.model, lambda sized: compared(trial_inputs(sized, seed=seed, inputs=inputs)))


def _with_structure(proof: Verification, model: Model, shrunk: Model, plan: Plan) -> Verification:
    """Add to a proof that failed what the structure of the shrunk model says."""
    planned = apply_plan(model, plan)
    expected = shrink_units(planned.model, planned.units, planned.keep)
    differs = misfit(expected, shrunk, zeros=plan.zeros)
    if differs is not None:
        return replace(proof, first_difference=f"{proof.first_difference}; its structure differs too: {differs}")
    # A network that does not run, or has grown to infinity, is no result of training.
    if not math.isfinite(proof.snr_db) or (complaint(shrunk) is not None and complaint(model) is None):
        return proof
    return replace(proof, retrained=retrained(expected, planned.model, shrunk, fitted=plan.fitted))


def bench(
    models: Sequence[Source],
    *,
    large: int = LARGE,
    threads: int = 1,
    seconds: float = 3.0,
    seed: int = 0,
    inputs: Mapping[str, object] = MappingProxyType({}),
    input_shapes: InputShapes | None = None,
    custom_ops: Sequence[str | Path] = (),
    progress: ProgressLike = SILENT,
) -> Latencies:
    """Time models side by side on this CPU, in turns, at batch 1 and a larger batch.

    Args:
        models: paths or models; the first one is the yardstick.
        large: the larger batch size, where the batch is free.
        threads: threads of one operator.
        seconds: time per batch size.
        seed: of the random inputs.
        inputs: values of some inputs by name, the same for every sample; the others are random.
        input_shapes: whole shapes of inputs, by name, where the file leaves sizes free; the batch says nothing.
        custom_ops: libraries of custom operators that onnxruntime registers.
        progress: told of each batch size, as for ``compress``.

    Returns:
        ``results``, one per batch size, each with the ``timings`` of every model and the ``speedups`` of all but the
        first, with their intervals.

    Raises:
        ModelFileError: a model does not run, or they do not accept the same inputs.
        CustomOperatorError: a library cannot be used.

    Examples:
        ```python
        plan = oa.rank("model.onnx", ratio=0.5)
        times = oa.bench(["model.onnx", oa.shrink("model.onnx", plan)], seconds=0.2)
        for result in times.results:
            print(result.batch, [timing.median_ms for timing in result.timings])
        ```
    """
    with custom_operators(custom_ops), listening(progress) as told:
        loaded = [opened(model, input_shapes) for model in models]
        names = [str(model.path or f"model {number}") for number, model in enumerate(loaded)]
        return measure_latency(
            loaded,
            names=names,
            large=large,
            threads=threads,
            seconds=seconds,
            seed=seed,
            inputs=inputs,
            progress=told,
        )


def opened(model: Source, input_shapes: InputShapes | None = None) -> Model:
    """Load a model, and state the sizes that its file leaves free.

    Raises:
        ModelFileError: the file is not a readable ONNX model.
        OptionError: a shape names no input, or contradicts the file.
    """
    return with_input_shapes(load(model), input_shapes or {})


def trial_inputs(
    model: Model, *, seed: int, inputs: Mapping[str, object] = MappingProxyType({})
) -> list[dict[str, NDArray[Any]]]:
    """Return random inputs for a verification: batches of one and three where the batch is free, else two others.

    Args:
        inputs: values of some inputs by name, the same for every sample.
    """
    batches = (1, 3) if batch_is_free(model) else (1, 1)
    return [
        random_inputs(model, batch=batch, seed=seed + number, inputs=inputs) for number, batch in enumerate(batches)
    ]


def apply_plan(model: Source, plan: Plan) -> Planned:
    """Find the units of a model again and read off the plan which of them stay.

    Raises:
        PlanError: the plan was made for another model.
    """
    loaded = load(model)
    # As compress does it: a fused weight may have another name, which the plan does not know.
    simple = simplify(loaded).model if plan.simplified else loaded
    ready = with_columns(simple, features=plan.features, inexact=plan.inexact)
    units = find(ready, inexact=plan.inexact, features=plan.features, ignore=plan.ignored)
    try:
        keep = plan.keep(ready, units)
    except PlanError as error:
        if plan.sha256 != ready.sha256 or libraries_in_use() or not has_custom_operators(ready):
            raise
        raise PlanError(
            error.thing,
            expected=error.expected,
            found=error.found,
            way_out="give the libraries that the plan was made with, --custom-ops, or make the plan anew",
        ) from error
    return Planned(zero_connections(ready, plan.zeros), units, keep)
