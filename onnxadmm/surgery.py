"""Pruning without training: find the groups, rank the units, mask, shrink, verify.

Every function takes a path or a loaded model; a plan is made for one model, known by the sha256 of its file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxadmm.bench.inputs import batch_is_free, random_inputs
from onnxadmm.bench.latency import Latencies, measure_latency
from onnxadmm.errors import OptionError, PlanError
from onnxadmm.files import refuse_input
from onnxadmm.graph.model import Model, load, save
from onnxadmm.graph.probing import has_custom_operators
from onnxadmm.graph.simplify import simplify
from onnxadmm.graph.weights import give_back_pages
from onnxadmm.output import OutputFile
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.plan import Plan, make_plan
from onnxadmm.plan.problem import Limits
from onnxadmm.plan.rank import Ranking, rank_by_budget, rank_by_ratio
from onnxadmm.rewrite.mask import mask as mask_units
from onnxadmm.rewrite.mask import zero_connections
from onnxadmm.rewrite.related import refuse_unrelated
from onnxadmm.rewrite.shrink import shrink as shrink_units
from onnxadmm.rewrite.verify import DEFAULT_THRESHOLD_DB, Verification, require
from onnxadmm.rewrite.verify import verify as compare
from onnxadmm.runtime.custom_ops import custom_operators, libraries_in_use
from onnxadmm.units.units import Units
from onnxadmm.units.units import find_units as find

Source = str | Path | onnx.ModelProto | Model


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
    model: Source, *, inexact: bool = False, ignore: Sequence[str] = (), custom_ops: Sequence[str | Path] = ()
) -> Units:
    """Find the groups of a model: those that may shrink, and why the others may not.

    Args:
        model: path or model.
        inexact: also prune through operators that mix along the removed axis.
        ignore: patterns of names of groups, layers or weights that must stay.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Raises:
        ModelFileError: the file is not a readable ONNX model.
        OptionError: a pattern matches nothing.
        CustomOperatorError: a library cannot be used.
    """
    with custom_operators(custom_ops):
        return find(load(model), inexact=inexact, ignore=ignore)


def rank(
    model: Source,
    budget: Budget | None = None,
    *,
    ratio: float | None = None,
    by: Ranking = "magnitude",
    limits: Limits | None = None,
    ignore: Sequence[str] = (),
    inexact: bool = False,
    seed: int = 0,
    custom_ops: Sequence[str | Path] = (),
) -> Plan:
    """Make a plan without training, from a budget or from the share of every group that goes.

    Args:
        model: path or model.
        budget: what the result may cost; only ``macs`` or ``params``.
        ratio: share of the units of every group that goes; instead of a budget.
        by: ``"magnitude"`` or ``"random"``.
        limits: how far a group may shrink.
        ignore, inexact: as for ``find_groups``.
        seed: of the random ranking.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Raises:
        OptionError: both or neither of budget and ratio are given, or a value is out of range.
        NothingToPruneError: no group may shrink.
        BudgetError: the budget cannot be met.
        CustomOperatorError: a library cannot be used.
    """
    if (budget is None) == (ratio is None):
        raise OptionError(
            "the plan",
            expected="a budget or a ratio",
            found="both" if ratio is not None else "neither",
            way_out="give one of --macs, --params and --ratio",
        )
    if budget is not None and budget.connections is not None:
        raise OptionError(
            "--connections",
            expected="a plan with training",
            found="a ranking without training",
            way_out="use `onnxadmm compress`, which prunes connections while it trains",
        )
    with custom_operators(custom_ops):
        loaded = load(model)
        units = find(loaded, inexact=inexact, ignore=ignore)
        bounds = limits if limits is not None else Limits()
        if budget is not None:
            keep = rank_by_budget(loaded, units, budget, by=by, limits=bounds, seed=seed)
            note = f"{budget.describe()} by {by}"
        else:
            assert ratio is not None  # one of the two is given
            keep = rank_by_ratio(loaded, units, ratio, by=by, limits=bounds, seed=seed)
            note = f"ratio {ratio:g} by {by}"
        return make_plan(loaded, units, keep, inexact=inexact, ignored=tuple(ignore), note=note)


def mask(model: Source, plan: Plan, *, custom_ops: Sequence[str | Path] = ()) -> Model:
    """Return the masked original: the readers of removed units zero, and a Mul by zeros where activations are summed.

    Args:
        model: path or model.
        plan: what to remove.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Raises:
        PlanError: the plan was made for another model.
        CustomOperatorError: a library cannot be used.
    """
    with custom_operators(custom_ops):
        planned = apply_plan(model, plan)
        return mask_units(planned.model, planned.units, planned.keep)


def shrink(model: Source, plan: Plan, *, custom_ops: Sequence[str | Path] = ()) -> Model:
    """Return the model without the units that the plan removes; it computes what ``mask`` computes.

    Args:
        model: path or model.
        plan: what to remove.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Raises:
        PlanError: the plan was made for another model.
        CustomOperatorError: a library cannot be used.
    """
    with custom_operators(custom_ops):
        planned = apply_plan(model, plan)
        return shrink_units(planned.model, planned.units, planned.keep)


def shrink_to_file(
    model: Source,
    plan: Plan,
    path: Path,
    *,
    sparse: bool = True,
    check: bool = True,
    seed: int = 0,
    force: bool = False,
    custom_ops: Sequence[str | Path] = (),
) -> tuple[int, Verification | None]:
    """Write the model without the units that the plan removes, once what was written is proven.

    Until then the file stands in a folder of its own beside its final place.

    Args:
        model: path or model.
        plan: what to remove.
        path: where to write.
        sparse: store weights with enough zeros sparsely.
        check: compare what was written with the masked original first.
        seed: of the random inputs.
        force: replace a file of that name, and the external data beside it.
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
            applied = apply_plan(model, plan)
            inexact = applied.units.inexact
            size = save(shrink_units(applied.model, applied.units, applied.keep), output.work, sparse=sparse)
            del applied
            give_back_pages()
            proof = require(_prove(load(model), load(output.work), plan, seed=seed), inexact=inexact) if check else None
            output.publish()
        return size, proof


def verify(
    model: Source,
    shrunk: Source,
    plan: Plan,
    *,
    inputs: Sequence[Mapping[str, NDArray[Any]]] | None = None,
    threshold_db: float = DEFAULT_THRESHOLD_DB,
    seed: int = 0,
    custom_ops: Sequence[str | Path] = (),
) -> Verification:
    """Run the masked original and the shrunk model on the same inputs and compare every output.

    Args:
        model: the original.
        shrunk: what ``shrink`` made of it.
        plan: what was removed.
        inputs: batches to try; random ones that fit the model when None.
        threshold_db: smallest signal-to-noise ratio that passes.
        seed: of the random inputs.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Raises:
        PlanError: the plan was made for another model.
        ModelFileError: ``shrunk`` was made from another model.
        CustomOperatorError: a library cannot be used.
    """
    with custom_operators(custom_ops):
        original, small = load(model), load(shrunk)
        refuse_unrelated(original, small)
        return _prove(original, small, plan, inputs=inputs, threshold_db=threshold_db, seed=seed)


def _prove(
    model: Model,
    shrunk: Model,
    plan: Plan,
    *,
    inputs: Sequence[Mapping[str, NDArray[Any]]] | None = None,
    threshold_db: float = DEFAULT_THRESHOLD_DB,
    seed: int,
) -> Verification:
    planned = apply_plan(model, plan)
    masked = mask_units(planned.model, planned.units, planned.keep)

    def kept(name: str, shape: tuple[int, ...]) -> tuple[NDArray[np.int64] | None, ...] | None:
        return planned.units.positions(name, planned.keep, shape)

    feeds = inputs if inputs is not None else trial_inputs(planned.model, seed=seed)
    return compare(masked, shrunk, feeds, threshold_db=threshold_db, kept=kept)


def bench(
    models: Sequence[Source],
    *,
    large: int = 64,
    threads: int = 1,
    seconds: float = 3.0,
    seed: int = 0,
    custom_ops: Sequence[str | Path] = (),
) -> Latencies:
    """Time models side by side on this CPU, in turns, at batch 1 and a larger batch.

    Args:
        models: paths or models; the first one is the yardstick.
        large: the larger batch size, where the batch is free.
        threads: threads of one operator.
        seconds: time per batch size.
        seed: of the random inputs.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Raises:
        ModelFileError: a model does not run, or they do not accept the same inputs.
        CustomOperatorError: a library cannot be used.
    """
    with custom_operators(custom_ops):
        loaded = [load(model) for model in models]
        names = [str(model.path or f"model {number}") for number, model in enumerate(loaded)]
        return measure_latency(loaded, names=names, large=large, threads=threads, seconds=seconds, seed=seed)


def trial_inputs(model: Model, *, seed: int) -> list[dict[str, NDArray[Any]]]:
    """Return random inputs for a verification: batches of one and three where the batch is free, else two others."""
    batches = (1, 3) if batch_is_free(model) else (1, 1)
    return [random_inputs(model, batch=batch, seed=seed + number) for number, batch in enumerate(batches)]


def apply_plan(model: Source, plan: Plan) -> Planned:
    """Find the units of a model again and read off the plan which of them stay.

    Raises:
        PlanError: the plan was made for another model.
    """
    loaded = load(model)
    # As compress does it: a fused weight may have another name, which the plan does not know.
    ready = simplify(loaded).model if plan.simplified else loaded
    units = find(ready, inexact=plan.inexact, ignore=plan.ignored)
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
