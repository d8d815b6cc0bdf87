"""Plans without training: the public ``rank``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.console import listening
from onnxadmm.errors import OptionError
from onnxadmm.latency.cost import PLANS, latency_for
from onnxadmm.plan.budget import Budget, Share, amount_options, parse_share
from onnxadmm.plan.given import given_budget, given_or_usual
from onnxadmm.plan.plan import Plan, make_plan
from onnxadmm.plan.problem import Limits
from onnxadmm.plan.rank import Ranking, rank_by_budget, rank_by_ratio
from onnxadmm.progress import SILENT, ProgressLike
from onnxadmm.rewrite.file_size import file_size
from onnxadmm.rewrite.growth import leave_out_growing
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.surgery import InputShapes, Source, opened
from onnxadmm.units.columns import about_columns, with_columns
from onnxadmm.units.cost import FileSize
from onnxadmm.units.units import Units
from onnxadmm.units.units import find_units as find


def rank(
    model: Source,
    budget: Budget | Mapping[str, Any] | None = None,
    *,
    ratio: Share | None = None,
    by: Ranking = "magnitude",
    limits: Limits | Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
    inexact: bool = False,
    features: bool = False,
    seed: int = 0,
    input_shapes: InputShapes | None = None,
    custom_ops: Sequence[str | Path] = (),
    progress: ProgressLike = SILENT,
) -> Plan:
    """Make a plan without training, from a budget or from the share of every group that goes.

    Groups that cut weights which the graph computes are left out where these would need more room as constants than the
    plan saves: they are among what the plan ignores.

    Args:
        model: path or model.
        budget: what the result may cost, without ``connections``. A dict of its fields will do, as for limits. A budget
            of latency has plans of the model measured first, on every core that this process may use.
        ratio: share of the units of every group that goes, ``0.3`` or ``"30%"``; instead of a budget.
        by: ``"magnitude"`` (of the weights that write and read a unit, relative to its group) or ``"random"``; see
            docs/method.md for what such plans are good for.
        limits: how far a group may shrink.
        ignore: as for ``find_groups``.
        inexact: as for ``find_groups``.
        features: as for ``find_groups``.
        seed: of the random ranking.
        input_shapes: as for ``find_groups``.
        custom_ops: libraries of custom operators that onnxruntime registers.
        progress: told what happens, as for ``compress``: the measurements of a budget of latency take long.

    Returns:
        The plan, for ``mask``, ``shrink`` and ``verify``.

    Raises:
        OptionError: both or neither of budget and ratio are given, or a value is out of range.
        NothingToPruneError: no group may shrink.
        BudgetError: the budget cannot be met.
        CustomOperatorError: a library cannot be used.

    Examples:
        ```python
        plan = oa.rank("model.onnx", oa.Budget(macs=0.5))
        half = oa.rank("model.onnx", ratio="50%", by="random", seed=1)
        print(plan.removed_count, half.removed_count)
        ```
    """
    if (budget is None) == (ratio is None):
        raise OptionError(
            "the plan",
            expected="a budget or a ratio",
            found="both" if ratio is not None else "neither",
            way_out=f"give one of {amount_options()} and --ratio",
        )
    goal = given_budget(budget)
    if goal is not None and goal.connections is not None:
        raise OptionError(
            "--connections",
            expected="a plan with training",
            found="a ranking without training",
            way_out="use `onnxadmm compress`, which prunes connections while it trains",
        )
    share = parse_share(ratio if ratio is not None else 0.0, option="--ratio")
    bounds = given_or_usual(Limits, limits, "the limits", "Limits(max_ratio=0.9)")
    with custom_operators(custom_ops), listening(progress) as told:
        told.stage("analyse")
        loaded = with_columns(opened(model, input_shapes), features=features, inexact=inexact)

        def choose(units: Units) -> NDArray[np.bool_]:
            if goal is None:
                return rank_by_ratio(loaded, units, share, by=by, limits=bounds, seed=seed)
            return rank_by_budget(loaded, units, counted, by=by, limits=bounds, seed=seed, file=file(units))

        def file(units: Units) -> FileSize:
            return file_size(loaded, units, original=loaded.file_bytes)

        counted = goal.before_measuring() if goal is not None else Budget(macs=1)
        units, keep, left = leave_out_growing(
            loaded,
            tuple(ignore),
            find=lambda left: find(loaded, inexact=inexact, features=features, ignore=left),
            choose=choose,
        )
        if features:
            told.note(about_columns(units))
        if goal is not None and goal.latency is not None:
            told.stage("measure latency", total=PLANS)
            latency = latency_for(loaded, units, goal, bounds, seed=seed, on_plan=told.advance)
            told.note(latency.describe())
            keep = rank_by_budget(
                loaded, units, goal, by=by, limits=bounds, seed=seed, file=file(units), latency=latency
            )
        note = f"{goal.describe() if goal is not None else f'ratio {share:g}'} by {by}"
        return make_plan(loaded, units, keep, inexact=inexact, features=features, ignored=left, note=note)
