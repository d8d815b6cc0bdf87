"""A model in bytes, judged on held-out samples as the runs judge theirs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.bench.byte_products import byte_products_are_exact
from onnxadmm.bench.inputs import batch_is_free, fixed_batch
from onnxadmm.graph.model import Model
from onnxadmm.int8.choose import InBytes, leave_in_float
from onnxadmm.int8.static import Quantizer
from onnxadmm.report.words import plural
from onnxadmm.run.likeness import points_lost
from onnxadmm.run.trainings import Training
from onnxadmm.train.data.batches import ArrayDataset

#: Samples that ranges are measured with, and that one operator's worth is.
_SAMPLES, _FEW = 512, 128
_BATCH: Final = 32
#: Operators that are named.
_NAMED: Final = 8


def quantize_with(training: Training, model: Model, *, most: float, narrow: bool | None = None) -> InBytes:
    """Quantise a model with training samples, and leave in floats what held-out samples say.

    Args:
        training: of a run whose data the model reads, with the model as its teacher.
        model: in floats.
        most: that may be lost: points of held-out accuracy, or of agreement where there are no labels; where the
            outputs are numbers, hundredths of their variance.
        narrow: see ``Quantizer``; None: as this processor needs it.

    Raises:
        ModelFileError: onnxruntime's tools cannot take the model.
    """
    journal = training.journal
    if narrow is None:
        narrow = not byte_products_are_exact()
    held_out, (lost, _) = training.held_out, points_lost(training, model)
    few = replace(_some(held_out, _FEW), labels=None)

    with journal.stage("quantise"):
        quantizer = Quantizer(model, _feeds(training, model), narrow=narrow)
        found = leave_in_float(quantizer, lost=lost, distance=lambda made: training.metrics(made, few).loss, most=most)
    if found.floats:
        shown = ", ".join(found.floats[:_NAMED]) + (", ..." if len(found.floats) > _NAMED else "")
        journal.say(f"In bytes {plural(len(found.floats), 'operator')} would cost too much, and kept floats: {shown}.")
    if narrow:
        journal.say(
            "Weights have 7 bits, since processors without VNNI, as this one, cut off sums of products of 8-bit ones."
        )
    return found


def _feeds(training: Training, model: Model) -> Iterator[Mapping[str, NDArray[Any]]]:
    samples = _some(training.samples, _SAMPLES)
    free = batch_is_free(model)
    for batch in samples.batches(_BATCH if free else fixed_batch(model), pad_last=not free):
        yield {**batch.inputs, **training.samples.held}


def _some(data: ArrayDataset, count: int) -> ArrayDataset:
    """At most so many of the samples, from everywhere: where they lie in folders, the first ones are of one class."""
    return data.take(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(np.int64))
