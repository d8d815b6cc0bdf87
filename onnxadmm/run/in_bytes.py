"""A model in bytes, judged on held-out samples as the runs judge theirs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from onnxadmm.bench.byte_products import byte_products_are_exact
from onnxadmm.bench.inputs import batch_is_free, fixed_batch
from onnxadmm.graph.model import Model
from onnxadmm.int8.choose import leave_in_float
from onnxadmm.int8.static import Quantizer
from onnxadmm.plan.drop import Drop
from onnxadmm.report.variants import floats_in_words
from onnxadmm.run.likeness import points_lost
from onnxadmm.run.trainings import Training
from onnxadmm.run.variants import Variant, as_written
from onnxadmm.train.evaluate import Teacher

#: Samples that ranges are measured with, and that one operator's worth is.
RANGE_SAMPLES: Final = 512
_FEW: Final = 128
BATCH: Final = 32


def quantize_with(
    training: Training, model: Model, path: Path | None, *, most: Drop, narrow: bool | None = None
) -> Variant:
    """Quantise a model with training samples, and leave in floats what held-out samples say.

    Args:
        training: of a run whose data the model reads.
        model: in floats; what is lost is lost of its answers, whoever was its teacher.
        path: file to write; None writes nothing.
        most: that may be lost: points of held-out accuracy, or of agreement where there are no labels; where the
            outputs are numbers, hundredths of their variance.
        narrow: see ``Quantizer``; None: as this processor needs it.

    Raises:
        ModelFileError: onnxruntime's tools cannot take the model.
        OutputError: the file cannot be written.
    """
    journal = training.journal
    if narrow is None:
        narrow = not byte_products_are_exact()
    judge = _taught_by(training, model)
    few = replace(judge.held_out.some(_FEW), labels=None)
    lost, _, share = points_lost(judge, model)

    with journal.stage("quantise"):
        quantizer = Quantizer(model, _feeds(judge, model), narrow=narrow)
        found = leave_in_float(
            quantizer,
            lost=lost,
            distance=lambda made: judge.metrics(made, few).loss,
            most=most.allowed(share),
        )
    told = []
    if found.floats:
        told.append(floats_in_words(found.floats, len(quantizer.nodes)))
    if narrow:
        told.append(
            "Weights have 7 bits, since processors without VNNI, as this one, cut off sums of products of 8-bit ones."
        )
    for sentence in told:
        journal.progress.note(sentence)
    return Variant("int8", as_written(found.model, path), found.floats, tuple(told))


def try_quantizing(training: Training, model: Model) -> None:
    """Quantise a model with a single batch, and throw it away: what refuses it does so before anything takes long.

    Raises:
        ModelFileError: onnxruntime's tools cannot take the model.
    """
    feeds = _feeds(training, model)
    Quantizer(model, [next(feeds)]).quantized()


def _taught_by(training: Training, model: Model) -> Training:
    """The same data, with a model as the only teacher: where there are no labels, its answers are the right ones."""
    loss = replace(training.loss, distillation=1.0)
    recipe = training.recipe
    teacher = Teacher(training.shown(model), loss=loss, threads=recipe.threads, beside=training.beside)
    return replace(training, loss=loss, teacher=teacher, taught_by=None)


def _feeds(training: Training, model: Model) -> Iterator[Mapping[str, NDArray[Any]]]:
    samples = training.samples.some(RANGE_SAMPLES)
    free = batch_is_free(model)
    for batch in samples.batches(BATCH if free else fixed_batch(model), pad_last=not free):
        yield {**batch.inputs, **training.samples.held}
