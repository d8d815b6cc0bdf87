"""Runs of one model under budgets of one kind, that pass on what they can: what a sweep and a search are made of."""

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from onnxadmm.ahead import Ahead, look_ahead
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.compress import compress, crew_of, with_simd_block
from onnxadmm.console import listening
from onnxadmm.elsewhere import compress_elsewhere
from onnxadmm.errors import CheckpointError, OptionError, OutputError
from onnxadmm.files import discard
from onnxadmm.one_budget import compress_apart
from onnxadmm.output import CHECKPOINT_NAME, PAGE_NAME, UNFINISHED_NAME, names_of_results
from onnxadmm.plan.budget import Amount, Budget, parse_amount
from onnxadmm.plan.given import given_or_usual
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
#: Share of the retraining epochs that a budget takes which goes on from a larger network: its weights have been
#: retrained before.
_RETRAIN_EPOCHS: Final = 0.5


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
        command: what makes all of them again, once they have begun.
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
        self.command = ""
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
        self._ahead: Ahead | None = None
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
        if self._done and kind is not None and not issubclass(kind, Exception):
            with listening(self._options.get("progress", SILENT)) as told:
                told.note(f"In {self._folder} is what has been done so far; --resume goes on from there.")

    def begin(self, amounts: Sequence[Amount]) -> None:
        """Find out before the first run, and before anything takes long, whether all of them can be made.

        Args:
            amounts: those of all runs, the largest first; one within reach where they are still to be found.

        Raises:
            OutputError: older results are in the way.
            BudgetError: the smallest that is left is out of reach.
            CheckpointError: a run that is done, and left alone, was of something else.
            OnnxAdmmError: whatever else ``compress`` raises before it begins.
        """
        names = [folder_name(self._kind, amount) for amount in amounts]
        if not (self._force or self._resume):
            self._refuse_older(names)
        self.shared.crew = self._crew
        left = [amount for amount, name in zip(amounts, names, strict=True) if not self._is_done(name)]
        # Not one that is done: a budget of latency that was met may be a little out of reach on another day.
        call = self._call((left or amounts[:1])[-1])
        self._ahead = look_ahead(call, shared=self.shared, reads=self._resume)
        self.command = self._of_all(self._ahead.command, amounts)
        for name in names:
            self.finished(name)

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
            self.shared.crew, self.shared.command = self._crew, self.command
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
        name = folder_name(self._kind, amount)
        return {
            **self._options,
            "model": self._model,
            "budget": _with(self._common, self._kind, amount),
            "out": self._folder / name,
            "force": self._force,
            "resume": self._resume and self._is_unfinished(name),
        }

    def add(self, amount: Amount, name: str, report: Report) -> None:
        """Put a run of another kind among the points; its results stand in the folder of that name."""
        self._done.append((str(amount), name, report))
        self.write()

    def finished(self, name: str, call: Mapping[str, Any] | None = None) -> Report | None:
        """Return the report of a run that was done before, where such runs are left alone.

        Args:
            name: of its folder.
            call: the arguments of ``compress`` that would make it; None: those of all runs, but for the amount.

        Raises:
            CheckpointError: it was a run with another model, other data or other options.
        """
        if not self._is_done(name):
            return None
        found = read_report(self._folder / name)
        ahead = self._ahead if call is None else look_ahead(call, shared=Shared(), reads=True)
        assert ahead is not None, "runs are begun before they are made"
        ahead.refuse_other(found, self._folder / name, kind=self._kind)
        return found

    def _is_done(self, name: str) -> bool:
        """Whether a run was done before, and is left alone."""
        folder = self._folder / name
        return self._resume and (folder / REPORT_NAME).exists() and not (folder / UNFINISHED_NAME).exists()

    def _refuse_older(self, names: Sequence[str]) -> None:
        """Refuse a folder with runs of these names, begun or done, or with other ones side by side."""
        begun = [f"{name}/{UNFINISHED_NAME}" for name in names if self._is_unfinished(name)]
        done = [name for name in names if names_of_results(self._folder / name)]
        if found := [*done, *begun, *([NAME] if (self._folder / NAME).exists() else [])]:
            raise OutputError(
                str(self._folder),
                expected="a folder without a sweep",
                found=", ".join(found),
                way_out="go on with --resume, choose another folder, or use --force to replace it",
            )

    def _is_unfinished(self, name: str) -> bool:
        return (self._folder / name / UNFINISHED_NAME / CHECKPOINT_NAME).exists()

    @property
    def none(self) -> bool:
        """Whether no run has come to its end."""
        return not self._done

    @property
    def reports(self) -> tuple[Report, ...]:
        """Of the runs that are done, in their order."""
        return tuple(report for _, _, report in self._done)

    def found(self) -> TradeOff:
        """Return the points so far, the largest budget first."""
        done = sorted(self._done, key=lambda each: -parse_amount(each[0], option=f"--{self._kind}"))
        return trade_off(self._kind, done, command=self.command)

    def _of_all(self, command: str, amounts: Sequence[Amount]) -> str:
        """What makes all runs again, from the command of one of them."""
        words = shlex.split(command)
        words[words.index("compress")] = "sweep"
        words[words.index(f"--{self._kind}") + 1] = ",".join(map(str, amounts))
        words[words.index("--out") + 1] = str(self._folder)
        return shlex.join(words)

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


def _with(common: Budget | None, kind: CostKind, amount: Amount) -> Budget:
    changed: dict[str, Any] = {kind: amount}
    return Budget(**changed) if common is None else replace(common, **changed)
