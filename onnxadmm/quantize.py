"""``quantize``: a model in bytes, with what it costs and what it gains."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onnxadmm.bench.latency import LARGE, measure_latency
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions
from onnxadmm.compress import describe_source
from onnxadmm.console import listening
from onnxadmm.files import refuse_existing, refuse_input
from onnxadmm.graph.model import Model, load
from onnxadmm.graph.stated import leaves_sizes_open, with_samples
from onnxadmm.output import OutputFile
from onnxadmm.plan.drop import parse_drop
from onnxadmm.plan.given import given_or_usual
from onnxadmm.progress import SILENT, ProgressLike
from onnxadmm.report.report import LatencyLine, Report, StageTime, latency_lines
from onnxadmm.run.in_bytes import quantize_with
from onnxadmm.run.journal import Journal
from onnxadmm.run.measure import column_of
from onnxadmm.run.reading import read_training
from onnxadmm.run.recipe import MOST_LOST, Preprocessing, Recipe
from onnxadmm.run.trainings import Training
from onnxadmm.run.variants import losses_of
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.surgery import InputShapes, Source, opened


@dataclass(frozen=True)
class Quantized:
    """What ``quantize`` gives.

    Attributes:
        model: in bytes.
        floats: names of the operators that kept their floats.
        report: original and result beside each other.

    Examples:
        ```python
        done = oa.quantize("model.onnx", images, bench=False)
        oa.save(done.model, "model.int8.onnx")
        print(done.floats, done.report.after.file_bytes)
        ```
    """

    model: Model
    floats: tuple[str, ...]
    report: Report

    def __repr__(self) -> str:
        before, after = self.report.before, self.report.after
        kept = f"{len(self.floats)} operators kept floats" if self.floats else "no operator kept floats"
        return f"Quantized({before.file_bytes:,} to {after.file_bytes:,} bytes, {kept})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows, as for a report."""
        return self.report._repr_html_()


def quantize(
    model: Source,
    samples: object,
    *,
    out: str | Path | None = None,
    test: object | None = None,
    max_drop: float | str = MOST_LOST,
    narrow: bool | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    inputs: Mapping[str, object] | None = None,
    seed: int = 0,
    input_shapes: InputShapes | None = None,
    custom_ops: Sequence[str | Path] = (),
    bench: bool = True,
    bench_batch: int = LARGE,
    force: bool = False,
    progress: ProgressLike = SILENT,
) -> Quantized:
    """Round a model's weights and activations to eight bits: a quarter of the bytes, and faster where there is VNNI.

    Static quantisation by ``onnxruntime.quantization``: QuantizeLinear and DequantizeLinear around each layer, a scale
    for every output channel of a weight, ranges of activations as the samples have them. Where that loses more than
    ``max_drop`` on held-out samples, operators are left in floats, those that gain most first.

    Args:
        model: path or model, pruned or not.
        samples: in the forms that ``compress`` takes as ``calibrate``, labelled or not; some hundreds are enough. A
            tenth of them is held out.
        out: file to write; None writes nothing.
        test: labelled test data, for the last line of the report and nothing else.
        max_drop: points of held-out accuracy that may be lost, or percent of it as ``"2%"``, or of agreement with the
            original where there are no labels; for outputs that are numbers, hundredths of their variance.
        narrow: weights of 7 bits, for x86-64 processors without VNNI, which cut off sums of 8-bit products; None: as
            this processor needs it.
        recipe: how data are read: ``loss``, ``output``, ``class_axis``, ``ignore_index``, ``held_out``.
        preprocessing: what is done to stored values.
        inputs: as for ``compress``.
        seed: of the choice of what is held out.
        input_shapes: as for ``compress``.
        custom_ops: as for ``compress``.
        bench: time original and result.
        bench_batch: the larger batch size they are timed at, beside 1.
        force: replace what is at ``out``.
        progress: told what happens, as for ``compress``.

    Returns:
        The model in bytes, what kept its floats, and a report of both.

    Raises:
        InputError: the model or the samples cannot be used; nothing was written.

    Examples:
        ```python
        done = oa.quantize("model.onnx", images, out="model.int8.onnx", max_drop=0.5, bench=False, force=True)
        print(done.report.before.file_bytes, done.report.after.file_bytes)
        ```
    """
    drop = parse_drop(max_drop, nothing=True)
    target = None if out is None else Path(out)
    if target is not None:
        refuse_input(target, model, samples, test)
        refuse_existing(target, force=force)
    # The original is the only teacher: no labels are needed.
    chosen = replace(given_or_usual(Recipe, recipe, "the recipe", 'Recipe(loss="mse")'), distillation=1.0)
    prepared = given_or_usual(
        Preprocessing, preprocessing, "the preprocessing", "Preprocessing(mean=[0.13], std=[0.31])"
    )
    with ExitStack() as stack:
        stack.enter_context(custom_operators(custom_ops))
        journal = Journal(stack.enter_context(listening(progress)))
        original = opened(model, input_shapes)
        file = stack.enter_context(OutputFile(target, force=force)) if target is not None else None
        with journal.stage("read data"):
            training = read_training(
                original, samples, test, recipe=chosen, preprocessing=prepared, made=False, inputs=inputs or {},
                seed=seed, journal=journal, trains=False,
            )  # fmt: skip
        if leaves_sizes_open(original):
            original = with_samples(original, training.samples.sample_shapes)
        found = quantize_with(training, original, file.work if file else None, most=drop, narrow=narrow)
        result = found.model
        with journal.stage("measure"):
            before, after = (column_of(training, each) for each in (original, result))
        latency, skipped = _timed(original, result, training, bench_batch, journal) if bench else ((), ())
        machine = this_machine()
        losses = losses_of("int8", after, plain=before, latency=latency, machine=machine)
        report = Report(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command="quantize",
            options={
                "model": describe_source(model), "samples": describe_source(samples), "test": describe_source(test),
                "out": None if out is None else str(out), "max_drop": max_drop, "narrow": narrow,
                "floats": ", ".join(found.floats) or None,
            },
            seed=seed,
            versions=package_versions(),
            machine=machine,
            before=before,
            after=after,
            budgets=(),
            latency=latency,
            verification=None,
            groups=(),
            simplified=(*journal.notes, *found.told),
            warnings=(*journal.warnings, *losses, *skipped),
            history=(),
            stages=tuple(journal.stages),
        )  # fmt: skip
        if file is not None and target is not None:
            file.publish()
            result = load(target)
        return Quantized(result, found.floats, report)


def _timed(
    original: Model, result: Model, training: Training, batch: int, journal: Journal
) -> tuple[tuple[LatencyLine, ...], tuple[str, ...]]:
    began = time.perf_counter()
    latencies = measure_latency(
        [original, result],
        names=["before", "after"],
        large=batch,
        threads=this_machine().threads,
        seed=training.seed,
        inputs=training.samples.held,
        progress=journal.progress,
    )
    journal.stages.append(StageTime("latency", time.perf_counter() - began))
    return latency_lines(latencies), latencies.skipped
