"""``sweep``: several budgets of one model, that share what they can."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from onnxadmm.apart import refuse_unsendable
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.compress import compress, crew_of, with_simd_block
from onnxadmm.console import listening
from onnxadmm.elsewhere import compress_elsewhere
from onnxadmm.errors import CheckpointError, OptionError
from onnxadmm.files import discard
from onnxadmm.one_budget import compress_apart
from onnxadmm.output import CHECKPOINT_NAME, PAGE_NAME, UNFINISHED_NAME
from onnxadmm.plan.budget import COUNTED, Amount, Budget, parse_amount
from onnxadmm.plan.given import given_budget, given_or_usual
from onnxadmm.plan.problem import Limits
from onnxadmm.progress import SILENT
from onnxadmm.report.page import page_of_sweep
from onnxadmm.report.reading import NAME as REPORT_NAME
from onnxadmm.report.reading import read_report
from onnxadmm.report.report import Report
from onnxadmm.report.tradeoff import CSV_NAME, NAME, TradeOff, to_csv, to_text, trade_off
from onnxadmm.report.words import plural
from onnxadmm.report.writer import write_text
from onnxadmm.run.asked import leaves_method_open
from onnxadmm.run.recipe import Recipe
from onnxadmm.run.shared import Shared
from onnxadmm.surgery import Source
from onnxadmm.units.cost import CostKind

#: What the runs share, while there are more to come.
_SHARED: Final = "shared.npz"
#: Share of the pruning epochs that a budget takes at least which goes on from a larger network.
_LEAST_EPOCHS: Final = 0.15
#: Share of them that all budgets behind the first take together, beyond that least.
_ALL_EPOCHS: Final = 0.8
#: Share of the retraining epochs that such a budget takes: its weights have been retrained before.
_RETRAIN_EPOCHS: Final = 0.5


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
        resume: leave budgets alone that are done, and go on with the others.
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
        alone = budgets[:1] if beside else budgets
        for place, each in enumerate(alone):
            points.run(each.asked, epochs=_epochs(budgets, place), last=place + 1 == len(budgets))
        if beside:
            points.run_beside([each.asked for each in budgets[1:]], jobs=jobs)
        points.end()
        return points.found()


class Points:
    """The runs of one model under budgets of one kind, each in a folder of its own, that pass on what they can.

    Used as a context, in which the machines of a cluster are there, if there is one.

    Args:
        model: path or model.
        kind: what the budgets count.
        folder: of all of them.
        common: what else every result may cost.
        force: replace older results.
        resume: leave runs alone that are done.
        options: of every run, as ``compress`` takes them.

    Raises:
        OptionError: a time for one run is among the options.

    Attributes:
        shared: what the next run goes on from.
    """

    def __init__(
        self,
        model: Source,
        kind: CostKind,
        folder: Path,
        *,
        common: Budget | None,
        force: bool,
        resume: bool,
        options: Mapping[str, Any],
    ) -> None:
        if options.get("max_minutes") is not None or options.get("quick"):
            raise OptionError(
                "--quick" if options.get("quick") else "--max-minutes",
                expected="one run, whose epochs can be shortened",
                found="a sweep or a search, which has several",
                way_out="give --epochs and --retrain-epochs",
            )
        self.shared = Shared()
        self._model, self._kind, self._folder, self._common = model, kind, folder, common
        self._force, self._resume, self._options = force, resume, dict(options)
        recipe = given_or_usual(Recipe, options.get("recipe"), "the recipe", "Recipe(epochs=5)")
        self._cluster = recipe.cluster
        if leaves_method_open(recipe, options):
            # Networks go on from each other where they are pruned while they train, and only there.
            self._options["recipe"] = replace(recipe, method="admm")
        elif self._cluster is not None and options.get("data") is None:  # each budget is made by one machine
            limits = given_or_usual(Limits, options.get("limits"), "the limits", "Limits(max_ratio=0.9)")
            self._options |= {"recipe": replace(recipe, cluster=None), "limits": with_simd_block(limits)}
        self._crew: RayCrew | None = None
        self._stack = ExitStack()
        self._done: list[tuple[str, str, Report]] = []
        if resume:
            with suppress(CheckpointError):  # none was kept: whatever is left begins with the original
                self.shared.read(folder / _SHARED)

    def __enter__(self) -> Self:
        if self._cluster is not None:
            self._crew = self._stack.enter_context(crew_of(self._cluster, self._options.get("custom_ops", ())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, amount: Amount, *, epochs: float, last: bool = False) -> Report:
        """Compress under one budget, unless that is done, and write the points so far.

        Args:
            epochs: share of the pruning epochs that a training takes which goes on from a larger network.
            last: whether nothing goes on from this run.

        Raises:
            OnnxAdmmError: whatever ``compress`` raises.
        """
        name = folder_name(self._kind, amount)
        found = self.finished(name)
        if found is None:
            self.shared.epochs, self.shared.retrain_epochs = epochs, _RETRAIN_EPOCHS
            self.shared.crew = self._crew
            found = compress(**self._call(amount), shared=self.shared)
            if not last:
                self.shared.write(self._folder / _SHARED)
        self._done.append((str(amount), name, found))
        self.write()
        return found

    def run_beside(self, amounts: Sequence[Amount], *, jobs: int) -> None:
        """Compress under several budgets beside each other, which go on from what a run before has measured.

        Args:
            jobs: processes at a time, where there are no machines, each of which has one at a time.

        Raises:
            OnnxAdmmError: whatever ``compress`` raises.
        """
        left: list[Amount] = []
        for amount in amounts:
            found = self.finished(folder_name(self._kind, amount))
            if found is None:
                left.append(amount)
            else:
                self._done.append((str(amount), folder_name(self._kind, amount), found))

        def done(number: int) -> None:
            name = folder_name(self._kind, left[number])
            self.add(left[number], name, read_report(self._folder / name))
            told.note(f"--{self._kind} {left[number]} is done.")
            told.advance()

        with listening(self._options.get("progress", SILENT)) as told:
            calls = [{**self._call(amount), "progress": SILENT} for amount in left]
            if self._crew is None:
                told.stage(f"{plural(len(left), 'budget')}, {jobs} at a time", total=len(left))
                compress_apart(calls, shared=self._folder / _SHARED, jobs=jobs, on_done=done)
            else:
                told.stage(f"{plural(len(left), 'budget')} over {plural(self._crew.count, 'machine')}", total=len(left))
                compress_elsewhere(self._crew, calls, shared=self.shared, on_done=done, tell=told.note)
        self.write()

    def _call(self, amount: Amount) -> dict[str, Any]:
        """The arguments of ``compress`` under one budget."""
        folder = self._folder / folder_name(self._kind, amount)
        return {
            **self._options,
            "model": self._model,
            "budget": _with(self._common, self._kind, amount),
            "out": folder,
            "force": self._force,
            "resume": self._resume and (folder / UNFINISHED_NAME / CHECKPOINT_NAME).exists(),
        }

    def add(self, amount: Amount, name: str, report: Report) -> None:
        """Put a run of another kind among the points; its results stand in the folder of that name."""
        self._done.append((str(amount), name, report))
        self.write()

    def finished(self, name: str) -> Report | None:
        """Return the report of a run that was done before, where such runs are left alone."""
        return _finished(self._folder / name) if self._resume else None

    @property
    def none(self) -> bool:
        """Whether no run has come to its end."""
        return not self._done

    def found(self) -> TradeOff:
        """Return the points so far, the largest budget first."""
        done = sorted(self._done, key=lambda each: -parse_amount(each[0], option=f"--{self._kind}"))
        return trade_off(self._kind, done, command=self._command(done))

    def _command(self, done: Sequence[tuple[str, str, Report]]) -> str:
        return _as_sweep(self._done[0][2].command, self._kind, [amount for amount, _, _ in done], self._folder)

    def write(self) -> None:
        """Write the points so far: as JSON, as a table, as a page."""
        found = self.found()
        for file, text in ((NAME, to_text(found)), (CSV_NAME, to_csv(found)), (PAGE_NAME, page_of_sweep(found))):
            write_text(self._folder / file, text)

    def end(self) -> None:
        """Forget what runs pass on: there are no more to come."""
        discard(self._folder / _SHARED)


def folder_name(kind: CostKind, amount: Amount) -> str:
    """Return the name of the folder of one budget."""
    return f"{kind}-{re.sub(r'[^A-Za-z0-9.]+', '', str(amount).replace('%', 'percent'))}"


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


def _with(common: Budget | None, kind: CostKind, amount: Amount) -> Budget:
    changed: dict[str, Any] = {kind: amount}
    return Budget(**changed) if common is None else replace(common, **changed)


def _epochs(budgets: Sequence[_Budget], place: int) -> float:
    """Share of the pruning epochs for a budget that goes on from the one before: by how much smaller it is."""
    if place == 0:
        return 1.0
    way = math.log(budgets[place - 1].number / budgets[place].number)
    return max(_LEAST_EPOCHS, _ALL_EPOCHS * way / math.log(budgets[0].number / budgets[-1].number))


def _finished(folder: Path) -> Report | None:
    """The report of a budget that is done; None where it is not."""
    if (folder / UNFINISHED_NAME).exists() or not (folder / REPORT_NAME).exists():
        return None
    return read_report(folder)


def _as_sweep(command: str, kind: CostKind, amounts: Sequence[str], out: Path) -> str:
    """What makes a sweep again, from the command of one of its runs."""
    words = shlex.split(command)
    words[words.index("compress")] = "sweep"
    words[words.index(f"--{kind}") + 1] = ",".join(amounts)
    words[words.index("--out") + 1] = str(out)
    return shlex.join(words)
