"""``search``: the smallest trained network that keeps a promise."""

import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.compress import compress, describe_source
from onnxadmm.console import listening
from onnxadmm.errors import BudgetError, DivergedError, OptionError
from onnxadmm.output import OutputFolder, names_of_results
from onnxadmm.plan.budget import COUNTED, Amount, Budget
from onnxadmm.plan.drop import parse_drop
from onnxadmm.plan.given import given_budget, given_or_usual
from onnxadmm.points import Points
from onnxadmm.progress import SILENT, Progress
from onnxadmm.report.reading import read_report
from onnxadmm.report.report import Option, Report, StageTime
from onnxadmm.report.tradeoff import Point, TradeOff
from onnxadmm.report.writer import REPORT_NAMES, write_report
from onnxadmm.run.recipe import CalibrationOptions, Recipe
from onnxadmm.run.shared import Shared
from onnxadmm.surgery import Source
from onnxadmm.train.data.raw import Raw
from onnxadmm.train.data.sources import is_pictures, read_source
from onnxadmm.units.cost import CostKind

#: Where the networks that were tried stand, inside of the results' folder.
TRIED: Final = "tried"
#: The folder in it of what needed no training.
_CALIBRATED: Final = "calibrated"
#: Samples that the calibration in the beginning looks at, at most.
_SAMPLES: Final = 2048
#: What a training tries next, relative to what was kept, and without a calibration that keeps the promise.
_STEP: Final = 0.7
_FIRST: Final = 0.7
#: Trainings at the most; and how near the last two are to each other when that is near enough.
_MOST: Final = 6
_NEAR: Final = 1.12
#: Share of the pruning epochs that a training takes which goes on from a larger network.
_EPOCHS: Final = 0.4


def search(
    model: Source,
    *,
    data: object,
    max_drop: float | str,
    out: str | Path,
    by: CostKind = "macs",
    budget: Budget | Mapping[str, Any] | None = None,
    calibration: CalibrationOptions | Mapping[str, Any] | None = None,
    force: bool = False,
    resume: bool = False,
    **options: Any,
) -> tuple[TradeOff, Point]:
    """Find the smallest network that training can make which loses no more than it may on held-out data.

    Without another budget a calibration searches first, as ``compress`` does with ``calibrate`` and ``max_drop``:
    minutes tell how small the network gets without training. Then networks are trained, each from the one before and of
    0.7 times its cost, until one breaks the promise, and some between that and the last that kept it, if they are far
    from each other. At most six are trained.

    Args:
        model: path or model.
        data: labelled training data, in whatever form ``compress`` takes them.
        max_drop: points of held-out accuracy that may be lost, of a loss percent that it may rise; or percent of what
            the original has, ``"2%"``.
        out: folder for the result as ``compress`` writes it, and for ``tried``, a sweep of all that was tried.
        by: what the result shall cost the least of.
        budget: what else it may cost.
        calibration: how closely the calibration in the beginning looks, and those of ``method="calibrated"``.
        force: replace an older result in ``out``, and what was tried for it.
        resume: go on with a search that was interrupted.
        options: whatever else ``compress`` takes.

    Returns:
        All that was tried, and the point of the result.

    Raises:
        BudgetError: every network that was tried loses more; they stay in ``tried``.
        OptionError: ``by`` is no cost, or ``budget`` is one of it.
        OnnxAdmmError: whatever ``compress`` raises.

    Examples:
        ```python
        brief = {"epochs": 1, "retrain_epochs": 1, "batch_size": 16, "distillation": 1.0}  # the teacher alone
        tried, best = oa.search("model.onnx", data=images, max_drop=60, out="least", recipe=brief, bench=False)
        print(best.asked, best.parameters, [point.lost for point in tried.points])
        ```
    """
    common, max_drop = given_budget(budget), parse_drop(max_drop).asked
    looking = given_or_usual(CalibrationOptions, calibration, "the calibration", 'CalibrationOptions(effort="best")')
    recipe = given_or_usual(Recipe, options.get("recipe"), "the recipe", "Recipe(epochs=5)")
    if by not in COUNTED:
        raise OptionError("--by", expected=", ".join(COUNTED), found=repr(by), way_out="choose one of them")
    if common is not None and by in common.amounts:
        raise OptionError(
            f"--{by}", expected="no budget of what shall be least", found="one", way_out=f"leave --{by} out"
        )
    folder = Path(out)
    with (
        listening(options.pop("progress", SILENT)) as told,
        OutputFolder(folder, force=force, inputs=(model, data, options.get("teacher"))) as output,
    ):
        options["progress"] = told
        if force and not resume and (folder / TRIED).is_dir():
            shutil.rmtree(folder / TRIED)
        given = {**options, "data": data, **({"calibration": looking} if recipe.chooses_at_once else {})}
        with _Tried(
            *(model, by, folder / TRIED),
            common=common,
            force=True,
            resume=resume,
            options=given,
            promise=max_drop,
            effort=looking.effort,
        ) as points:
            points.begin(["100%"])
            start = None
            if common is None:
                promised = replace(looking, max_drop=max_drop, by=by)
                start = _without_training(points, model, data, folder / TRIED, promised, options)
            failed = _search(points, start, max_drop=max_drop, by=by, progress=told)
        if points.none:
            raise _nothing_made(failed, max_drop=max_drop, by=by, common=common)
        found = points.found()
        best = found.pick(max_drop)
        points.end()
        output.begin()
        tried = folder / TRIED / best.folder
        for name in set(names_of_results(tried)) - REPORT_NAMES:
            shutil.copyfile(tried / name, output.work / name)
        asked: dict[str, Option] = {"max_drop": max_drop, "by": by, by: None, "out": str(out)}
        asked |= {"data": describe_source(data), "calibrate": None}
        write_report(_of_search(read_report(tried), points, asked), output.work)
        output.publish()
    return found, best


def _of_search(best: Report, points: Points, asked: Mapping[str, Option]) -> Report:
    """The report of the result: of the network that was chosen, and of all runs that it took.

    Args:
        best: of its own run.
        asked: options of the search in place of those of that run.
    """
    spent: dict[str, float] = {}
    for stage in (stage for report in points.reports for stage in report.stages):
        spent[stage.name] = spent.get(stage.name, 0.0) + stage.seconds
    stages = tuple(StageTime(name, seconds) for name, seconds in spent.items())
    # What was expected is known of that run alone.
    return replace(best, command=points.command, options={**best.options, **asked}, stages=stages, forecast=())


class _Tried(Points):
    """Points of a search: what makes them again is the search."""

    def __init__(self, *given: Any, promise: float | str, effort: str, **named: Any) -> None:
        super().__init__(*given, **named)
        self._promise, self._effort = promise, effort

    def _of_all(self, command: str, amounts: Sequence[Amount]) -> str:
        words = shlex.split(command)
        place = words.index(f"--{self._kind}")
        words[place : place + 2] = ["--max-drop", str(self._promise), "--by", self._kind]
        words[words.index("--out") + 1] = str(self._folder.parent)
        if self._effort != CalibrationOptions.effort and "--effort" not in words:  # of what chose before it trained
            words += ["--effort", self._effort]
        return shlex.join(words)


def _without_training(
    points: Points,
    model: Source,
    data: object,
    folder: Path,
    calibration: CalibrationOptions,
    options: Mapping[str, Any],
) -> float | None:
    """Return the share of the cost at which a calibration keeps the promise; None where it does not keep it at all."""
    call: dict[str, Any] = {name: options[name] for name in _KEPT if name in options}
    call |= {"model": model, "calibrate": _some(data), "calibration": calibration, "out": folder / _CALIBRATED}
    found: Report | None = points.finished(_CALIBRATED, call)
    try:
        if found is None:
            found = compress(**call, force=True)
    except BudgetError:
        return None
    (line,) = found.budgets
    share = line.reached / line.original
    points.add(f"{share:.4g}", _CALIBRATED, found)
    return share


#: Options that hold for a calibration as well.
_KEPT: Final = (
    *("preprocessing", "inputs", "limits", "ignore", "inexact", "features", "simplified", "seed", "input_shapes"),
    *("custom_ops", "progress", "expect_accuracy", "bench", "bench_batch", "bench_threads"),
)


def _some(data: object) -> object:
    """Return a part of the data, where they are more than a calibration needs."""
    if is_pictures(data):
        return data  # images are brought to the size of the model as they are read
    raw = read_source(data)
    count = len(next(iter(raw.inputs.values())))
    if count <= _SAMPLES:
        return data
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:_SAMPLES])
    return _part(raw, chosen)


def _part(raw: Raw, chosen: NDArray[np.int64]) -> object:
    arrays = {name: array[chosen] for name, array in raw.inputs.items()}
    if raw.labels is None:
        return arrays
    if all(name.isdigit() for name in arrays):
        return (*arrays.values(), raw.labels[chosen])
    return {**arrays, raw.label_name or "labels": raw.labels[chosen]}


def _search(
    points: Points, start: float | None, *, max_drop: float | str, by: CostKind, progress: Progress
) -> dict[str, BudgetError | DivergedError]:
    """Train ever smaller networks until one loses too much, then some in between.

    Returns:
        What could not be made, in words, and why.
    """
    failed: dict[str, BudgetError | DivergedError] = {}
    kept, broken = start or 1.0, 0.0
    smallest: Shared | None = None
    for _ in range(_MOST):
        share = kept * _STEP if not broken else math.sqrt(kept * broken)
        amount = f"{share:.4g}"
        if smallest is not None:
            points.shared = replace(smallest)
        elif broken:
            points.shared = Shared(reading=points.shared.reading)  # no network was kept that another could go on from
        told, most = f"{100 * share:.1f} % of the {COUNTED[by].words}", 0.0
        try:
            points.run(amount, epochs=_EPOCHS)
            found = points.found()
            most, lost = found.allowed(max_drop), next(each.lost for each in found.points if each.asked == amount)
            progress.note(f"{told}: {lost:.2f} lost, {most:.4g} may be.")
        except (BudgetError, DivergedError) as error:
            lost, failed[told] = math.inf, error
            progress.note(f"{told}: {_why(error)} ({error})")
        if lost <= most:
            kept, smallest = share, points.shared
        else:
            broken = share
        if broken and kept / broken < _NEAR:
            break
    return failed


def _nothing_made(
    failed: Mapping[str, BudgetError | DivergedError], *, max_drop: float | str, by: CostKind, common: Budget | None
) -> BudgetError:
    """What is said where no network could be made at all.

    Args:
        failed: what was tried, in words, and why it was not made.
    """
    ways = []
    if any(isinstance(error, BudgetError) for error in failed.values()):
        others = [f"--by {kind}" for kind in COUNTED if kind != by and (common is None or kind not in common.amounts)]
        ways.append(f"search with {' or '.join(others)}")
        ways += [] if common is None else [f"allow more of {', '.join(f'--{kind}' for kind in common.amounts)}"]
    if any(isinstance(error, DivergedError) for error in failed.values()):
        ways.append("lower --learning-rate")
    return BudgetError(
        f"--max-drop {max_drop}",
        expected="a smaller network that can be made",
        found=f"none: {'; '.join(f'{told}: {_why(error)}' for told, error in failed.items())}",
        way_out=", or ".join(ways),
    )


def _why(error: BudgetError | DivergedError) -> str:
    return "out of reach" if isinstance(error, BudgetError) else "its training diverged"
