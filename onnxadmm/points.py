"""Runs of one model under budgets of one kind, that pass on what they can: what a sweep and a search are made of."""

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from onnxadmm.cluster.actors import RayCrew
from onnxadmm.compress import compress, crew_of, with_simd_block
from onnxadmm.console import listening
from onnxadmm.elsewhere import compress_elsewhere
from onnxadmm.errors import CheckpointError, OptionError
from onnxadmm.files import discard
from onnxadmm.one_budget import compress_apart
from onnxadmm.output import CHECKPOINT_NAME, PAGE_NAME, UNFINISHED_NAME
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


def _with(common: Budget | None, kind: CostKind, amount: Amount) -> Budget:
    changed: dict[str, Any] = {kind: amount}
    return Budget(**changed) if common is None else replace(common, **changed)


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
