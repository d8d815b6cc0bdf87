"""The public ``compress``: a model and data in, a smaller model, its plan and a report out."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from onnxadmm.bench.simd import this_machine
from onnxadmm.errors import OptionError
from onnxadmm.graph.model import load
from onnxadmm.operators.outside import rule_files
from onnxadmm.output import OutputFolder
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, refuse_contradictions
from onnxadmm.progress import SILENT, Progress
from onnxadmm.report.report import Report
from onnxadmm.run.choices import Choices
from onnxadmm.run.journal import Journal
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.steps import Compression
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.surgery import Source
from onnxadmm.train.engine import require as require_training


def compress(
    model: Source,
    *,
    data: object,
    budget: Budget | None = None,
    targets: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    test: object | None = None,
    recipe: Recipe | None = None,
    preprocessing: Preprocessing | None = None,
    limits: Limits | None = None,
    ignore: Sequence[str] = (),
    inexact: bool = False,
    simplified: bool = True,
    sparse: bool = True,
    seed: int = 0,
    custom_ops: Sequence[str | Path] = (),
    force: bool = False,
    resume: bool = False,
    progress: Progress = SILENT,
    options: Mapping[str, str | int | float | bool | None] | None = None,
) -> Report:
    """Prune a model while training it, remove what was pruned, prove it, retrain the rest, and measure.

    Args:
        model: path or model.
        data: training data, see ``onnxadmm.train.data.sources.read_source``: a path, arrays or an iterable of batches.
        budget: what the result may cost; may be left out when targets are given.
        targets: share of the units that stays, by pattern of group, layer or weight names; for mode ``"joint"``.
        out: folder for ``model.onnx``, ``plan.json``, ``report.json``, ``report.md`` and ``history.jsonl``; until
            they are complete, it holds the folder ``unfinished`` with the checkpoint. None writes nothing.
        test: test data, used for the last line of the report and nothing else.
        recipe: how to train.
        preprocessing: what is done to stored values.
        limits: how far a group may shrink.
        ignore: patterns of names of groups, layers or weights that must stay.
        inexact: also prune through operators that mix along the removed axis.
        simplified: simplify the model first.
        sparse: store weights with enough zeros sparsely.
        seed: of every random choice.
        custom_ops: libraries of custom operators, see ``onnxadmm.runtime.custom_ops``; every session of the run
            registers them, in its child processes too.
        force: replace an older result, or an unfinished run, in ``out``.
        resume: go on from the checkpoint that an interrupted run with the same model, data and options left in
            ``out/unfinished``; the result is that of a run that was not interrupted.
        progress: told what happens.
        options: what to write into the report as the options of the run.

    Raises:
        InputError: model, data or options cannot be used, or the model cannot be trained; nothing was written.
        NothingToPruneError, BudgetError: no group may shrink, or the budget is out of reach; nothing was written.
        VerificationError: the shrunk model does not compute what the masked original computes; no result was written,
            a checkpoint holds the trained network.
        DivergedError: training blew up; the last good state is in ``out/unfinished``.

    Whatever ends the training, a signal and ``KeyboardInterrupt`` included, leaves a checkpoint in ``out/unfinished``.
    """
    if resume and out is None:
        raise OptionError("--resume", expected="an out folder", found="none", way_out="give the folder of that run")
    chosen = recipe if recipe is not None else Recipe()
    refuse_contradictions(budget, targets or {}, layer_wise=chosen.mode == "joint")
    with ExitStack() as stack:
        libraries = stack.enter_context(custom_operators(custom_ops))
        choices = Choices(
            budget=budget,
            targets=dict(targets or {}),
            limits=_with_simd_block(limits if limits is not None else Limits()),
            preprocessing=preprocessing if preprocessing is not None else Preprocessing(),
            recipe=chosen,
            ignore=tuple(ignore),
            inexact=inexact,
            simplified=simplified,
            seed=seed,
            custom_ops=tuple(sorted(library.sha256 for library in libraries)) or None,
            rules=rule_files() or None,
        )
        run = Compression(load(model), choices, Journal(progress))
        require_training()
        # The folder comes first: an old result in it is a matter of milliseconds, not to be found after minutes.
        folder = (
            None
            if out is None
            else stack.enter_context(OutputFolder(out, force=force, resume=resume, inputs=(model, data, test)))
        )
        if folder is not None and resume:
            run.resume(folder.checkpoint)
        run.find()
        run.read(data, test)
        run.try_training()
        return run.finish(folder, sparse=sparse, options=options or {})


def _with_simd_block(limits: Limits) -> Limits:
    return limits if limits.round_to is not None else replace(limits, round_to=this_machine().simd_floats)
