"""How far the outputs of a result are from those of the original, where nothing else says what they are worth."""

from collections.abc import Callable

import numpy as np

from onnxadmm.graph.model import Model
from onnxadmm.run.trainings import Training

_BATCH = 256


def output_error(training: Training, original: Model, result: Model) -> float | None:
    """Return |y' - y|^2 / |y - mean y|^2 over held-out samples, y being what the loss is taken of.

    Returns:
        None where the original puts out the same for all of them, or there is one alone.
    """
    before, after = (training.predictor(model) for model in (original, result))
    error, squares, total, count = 0.0, 0.0, np.zeros(()), 0
    for batch in training.held_out.batches(_BATCH):
        inputs = dict(batch.inputs)
        is_now, was = (predictor.logits(inputs).astype(np.float64) for predictor in (after, before))
        error += float(np.square(is_now - was).sum())
        squares += float(np.square(was).sum())
        total = total + was.sum(axis=0)
        count += len(was)
    spread = squares - float(np.square(total).sum()) / max(1, count)
    return error / spread if count > 1 and spread > 1e-12 * squares else None


def points_lost(training: Training, original: Model) -> tuple[Callable[[Model], float], str, float | None]:
    """Return a measure of what results lose against the original on held-out samples, its unit in words, and a share.

    The share is what the original has, where points are counted; None elsewhere.

    That is points of accuracy, or of agreement where there are no labels, or of another metric that decides: points
    where it is a share, else hundredths of what the original has. Where the outputs are numbers and no metric decides,
    it is hundredths of their variance.
    """
    before = training.metrics(original, training.held_out)

    def lost(result: Model) -> float:
        if training.figure is not None and before.figure is not None:
            whole = 1.0 if training.figure.is_share else abs(before.deciding) or 1.0
            return 100.0 * (before.goodness - training.metrics(result, training.held_out).goodness) / whole
        if before.accuracy is None:
            return 100.0 * (output_error(training, original, result) or 0.0)
        return 100.0 * (before.accuracy - (training.metrics(result, training.held_out).accuracy or 0.0))

    if training.figure is not None and before.figure is not None:
        share = before.deciding if training.figure.is_share else None
        return lost, f"{'hundredths' if share is None else 'points'} of {training.figure.name}", share
    return lost, "hundredths of the variance" if before.accuracy is None else "points", before.accuracy
