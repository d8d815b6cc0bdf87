"""Between the cut and retraining: layers that read what goes, fitted to the outputs of the original."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.bench.inputs import batch_is_free, fixed_batch
from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.refit import layers_to_fit, refit
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.run.trainings import Pruned, Training
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.units.units import Units

Array = NDArray[Any]

#: Samples that run together, where the model leaves the batch free, and bytes of what all layers read of them: at most.
#: Rows are drawn batch by batch, so this must not depend on the memory that is given.
_BATCH: Final = 32
_BATCH_BYTES: Final = 256e6
#: Training samples that are fitted to, or that gradients are taken of, and what is mixed into the seed that draws them.
REFIT_SAMPLES: Final = 512
_ORDER: Final = 3_000_000


def feeds_of(network: Network, data: ArrayDataset) -> list[Mapping[str, Array]]:
    """Return samples as batches of inputs, those without a batch included."""
    model = network.model
    most = int(_BATCH_BYTES / max(1.0, network.sample_bytes))
    size = min(_BATCH, max(1, most)) if batch_is_free(model) else fixed_batch(model)
    return [{**batch.inputs, **data.held} for batch in data.batches(size, pad_last=not batch_is_free(model))]


def some_samples(training: Training) -> ArrayDataset:
    """Return training samples to fit layers to, or to take gradients of: drawn at random and always the same ones.

    Folders of classes are read one after the other, so the first ones may all be alike.
    """
    samples = training.samples
    generator = np.random.default_rng([training.seed, _ORDER])
    return samples.take(np.sort(generator.permutation(len(samples))[:REFIT_SAMPLES]))


def refitted(training: Training, model: Model, units: Units, pruned: Pruned) -> Pruned:
    """Return what pruning decided with the weights of the original, fitted anew without the units that go.

    What training has made of the weights is left behind; it is returned as it came where its held-out loss is no
    larger. Weights of which single entries went stay as they were trained.

    Args:
        model: the original, without gates on activations.
        units: its units.
    """
    if pruned.zeros or pruned.keep.all():
        return pruned
    network = Network(model, units)
    effort = replace(EFFORTS["normal"], threads=usable_cores())
    journal = training.journal
    with journal.stage("refit", total=len(layers_to_fit(network, pruned.keep, thinned=False))):
        fitted = refit(
            network,
            pruned.keep,
            feeds_of(network, some_samples(training)),
            effort,
            on_layer=lambda _: journal.progress.advance(),
        )
        other = Pruned(pruned.keep, {}, fitted.constants)
        before, after = (
            training.metrics(shrink(with_constants(model, each.weights), units, each.keep), training.held_out).loss
            for each in (pruned, other)
        )
    if not after < before:
        return pruned
    journal.say("The weights are those of the original, fitted without the units that went: on held-out data better "
                "than what training had made of them.")  # fmt: skip
    return other
