"""A model whose weights are stored in 16 bits, and how far that moves its outputs."""

from pathlib import Path

from onnxadmm.graph.halves import with_halved_weights
from onnxadmm.graph.model import Model
from onnxadmm.report.variants import wide_in_words
from onnxadmm.report.words import plural
from onnxadmm.run.likeness import output_error
from onnxadmm.run.trainings import Training
from onnxadmm.run.variants import Variant, as_written


def halve_with(training: Training, model: Model, path: Path | None, *, single_file: bool) -> Variant:
    """Store the weights of a model in 16 bits, and measure on held-out samples what that changes.

    Args:
        training: of a run whose data the model reads.
        path: file to write; None writes nothing.
        single_file: write weights into the file, also where the model has external data.

    Raises:
        OutputError: the file cannot be written.
    """
    with training.journal.stage("store in 16 bits"):
        halved, kept = with_halved_weights(model)
        made = as_written(halved, path, single_file=single_file)
        error = output_error(training, model, made)
    told = [wide_in_words(kept)] if kept else []
    if error is not None:
        told.append(
            f"With weights in 16 bits the outputs differ on {plural(len(training.held_out), 'held-out sample')} from "
            f"those in floats by {error:.1e} of what these vary by, in squares."
        )
    for sentence in told:
        training.journal.progress.note(sentence)
    return Variant("fp16", made, kept, tuple(told))
