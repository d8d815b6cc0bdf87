"""``sweep``: several budgets of one model, that share what they can."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from onnxadmm.apart import refuse_unsendable
from onnxadmm.errors import OptionError
from onnxadmm.plan.budget import COUNTED, Amount, Budget, parse_amount
from onnxadmm.plan.given import given_budget
from onnxadmm.points import Points
from onnxadmm.report.tradeoff import TradeOff
from onnxadmm.surgery import Source
from onnxadmm.units.cost import CostKind

#: Share of the pruning epochs that a budget takes at least which goes on from a larger network.
_LEAST_EPOCHS: Final = 0.15
#: Share of them that all budgets behind the first take together, beyond that least.
_ALL_EPOCHS: Final = 0.8


class _Budget(NamedTuple):
    """One budget of a sweep: the amount as it was given, and what it comes to for sorting."""

    asked: Amount
    number: float


def sweep(
    model: Source,
    *,
    out: str | Path,
    amounts: Mapping[CostKind, Sequence[Amount]],
    budget: Budget | Mapping[str, Any] | None = None,
    force: bool = False,
    resume: bool = False,
    jobs: int = 1,
    **options: Any,
) -> TradeOff:
    """Compress a model under several budgets, from the largest to the smallest.

    They share what they can: data, the original's figures and answers, and how fast its training is. With
    ``calibrate``, or the method ``"calibrated"``, the groups are measured once. With ``data`` and ``"admm"``, which
    ``"auto"`` is here, every network is pruned from the one before as it was retrained, not from the original, in a
    share of the epochs that fits how much smaller it is to be, and retrained in half of the epochs; the teacher is
    always the original, or the one that is given.

    Where the recipe names a cluster, its machines train every network together. The budgets of a calibration behind the
    first they make one each, on the conditions of ``jobs``.

    Args:
        model: path or model.
        out: folder with a folder for each budget, as ``compress`` writes it, ``sweep.json``, ``sweep.csv`` and
            ``report.html``.
        amounts: for one kind of cost, such as ``{"params": [0.5, 0.2, 0.1]}``, at least two amounts, all of them shares
            or all of them numbers.
        budget: what else every result may cost.
        force: replace older results in ``out``.
        resume: leave budgets alone that are done, of the same model and data with the same options, and go on with the
            others.
        jobs: processes at a time, for calibrated budgets: the first of them measures the groups alone, then the others
            run beside each other, to the same results. A model in a file, and ``bench=False``: timings beside other
            work say nothing.
        options: whatever else ``compress`` takes.

    Returns:
        The points side by side; ``pick`` chooses one of them.

    Raises:
        OptionError: the amounts are no sweep, or ``jobs`` or machines cannot be had.
        OnnxAdmmError: whatever ``compress`` raises; budgets that were done before stay.

    Examples:
        ```python
        found = oa.sweep("model.onnx", calibrate=images, bench=False, amounts={"macs": [0.8, 0.6, 0.4]}, out="sweeps")
        print(found.pick(max_drop=20.0).folder)
        ```
    """
    kind, budgets = _budgets(amounts)
    common = given_budget(budget)
    if common is not None and kind in common.amounts:
        raise OptionError(
            f"--{kind}", expected="it in the sweep, or for all", found="both", way_out="name it among the amounts alone"
        )
    where = _cluster(options.get("recipe"))
    beside = jobs != 1 or (where is not None and options.get("data") is None)
    if jobs != 1:
        _refuse_jobs(jobs, where, options)
    if beside:
        option = f"--cluster {where}" if jobs == 1 else f"--jobs {jobs}"
        _refuse_beside(option, model, kind, common, options)
    with Points(model, kind, Path(out), common=common, force=force, resume=resume, options=options) as points:
        points.begin([each.asked for each in budgets])
        alone = budgets[:1] if beside else budgets
        for place, each in enumerate(alone):
            points.run(each.asked, epochs=_epochs(budgets, place), last=place + 1 == len(budgets))
        if beside:
            points.run_beside([each.asked for each in budgets[1:]], jobs=jobs)
        points.end()
        return points.found()


def _budgets(amounts: Mapping[CostKind, Sequence[Amount]]) -> tuple[CostKind, list[_Budget]]:
    """Return what is counted and the amounts of it, the largest first."""
    if len(amounts) != 1 or not set(amounts) <= set(COUNTED):
        raise OptionError(
            "the sweep",
            expected="amounts of one kind of cost",
            found=", ".join(map(str, amounts)) or "none",
            way_out='write e.g. --params 0.5,0.2,0.1, or amounts={"params": [0.5, 0.2, 0.1]}',
        )
    ((kind, given),) = amounts.items()
    option = f"--{kind}"
    found = [_Budget(amount, parse_amount(amount, option=option)) for amount in given]
    found.sort(key=lambda each: -each.number)
    shares = {each.number <= 1 and not str(each.asked).strip().endswith("s") for each in found}
    if len({each.number for each in found}) < max(2, len(found)) or len(shares) > 1:
        raise OptionError(
            option,
            expected="two amounts or more, each once, all shares or all numbers",
            found=", ".join(str(each.asked) for each in found) or "none",
            way_out="write e.g. 0.5,0.2,0.1",
        )
    return kind, found


def _cluster(recipe: object) -> str | None:
    """Return which machines a recipe names, however it was given."""
    found = recipe.get("cluster") if isinstance(recipe, Mapping) else getattr(recipe, "cluster", None)
    return None if found is None else str(found)


def _refuse_jobs(jobs: int, where: str | None, options: Mapping[str, Any]) -> None:
    """Refuse processes where they are of no use."""
    trains = options.get("data") is not None
    for found, expected, way_out in (
        (str(jobs) if jobs < 1 else None, "at least 1", "leave it out"),
        (
            None if where is None else f"--cluster {where}",
            "processes of this machine alone",
            "leave one of the two out",
        ),
        (
            "a training, in which each network goes on from the one before" if trains else None,
            "budgets that do not wait for each other, those of a calibration",
            "leave it out: --workers shares each batch among processes",
        ),
    ):
        if found is not None:
            raise OptionError(f"--jobs {jobs}", expected=expected, found=found, way_out=way_out)


def _refuse_beside(
    option: str, model: Source, kind: CostKind, common: Budget | None, options: Mapping[str, Any]
) -> None:
    """Refuse to make budgets beside each other where that would change what comes of them, or cannot be.

    Args:
        option: what asks for it.
    """
    timed = kind == "latency" or (common is not None and common.latency is not None)
    if timed or options.get("bench", True):
        raise OptionError(
            option,
            expected="nothing that is timed, as timings beside other work say nothing",
            found="a budget of latency" if timed else "--bench",
            way_out="leave it out" if timed else "give --no-bench, and time the results with `onnxadmm bench`",
        )
    if not isinstance(model, (str, Path)):
        raise OptionError(
            option,
            expected="a model in a file, which every process reads",
            found=f"a model in memory: {type(model).__name__}",
            way_out="save it first",
        )
    name = option.partition(" ")[0]
    arguments = {name: value for name, value in options.items() if name != "progress"}
    refuse_unsendable(arguments, thing=name, way_out=f"give these, or leave {name} out")


def _epochs(budgets: Sequence[_Budget], place: int) -> float:
    """Share of the pruning epochs for a budget that goes on from the one before: by how much smaller it is."""
    if place == 0:
        return 1.0
    way = math.log(budgets[place - 1].number / budgets[place].number)
    return max(_LEAST_EPOCHS, _ALL_EPOCHS * way / math.log(budgets[0].number / budgets[-1].number))
