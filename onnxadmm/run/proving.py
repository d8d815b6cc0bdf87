"""The cut of a run, and the proof that nothing but it has changed."""

from collections.abc import Mapping
from typing import Any, Final

from numpy.typing import NDArray

from onnxadmm.bench.inputs import batch_is_free, fixed_batch
from onnxadmm.graph.constants import stored_bytes, with_constants
from onnxadmm.graph.model import Model
from onnxadmm.graph.still import about_drawing
from onnxadmm.report.words import plural
from onnxadmm.rewrite.mask import mask
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rewrite.verify import Verification, prove, require
from onnxadmm.run.trainings import Pruned, Training
from onnxadmm.surgery import trial_inputs
from onnxadmm.units.units import Units
from onnxadmm.units.vanishing import emptied

#: Real samples that are compared, where the batch is free.
_REAL: Final = 16


def cut_and_proven(
    ready: Model,
    units: Units,
    pruned: Pruned,
    training: Training,
    *,
    given: Model,
    seed: int,
    inputs: Mapping[str, object],
) -> tuple[Model, Verification]:
    """Return the small network, and the comparison with the masked original on random and on real inputs.

    Notes and warnings about it go into the journal.

    Args:
        ready: the model as its units were found.
        given: the model as it was given, for what its weights take.
        seed: of the random inputs.
        inputs: values of inputs by name, the same for every sample.

    Raises:
        VerificationError: they differ, and nobody has asked for what is inexact.
    """
    journal = training.journal
    for name, count in units.followers.gone(pruned.keep).items():
        journal.say(f"{count} of the units of {name} went as well, since none of their columns is left.")
    if gone := emptied(units, pruned.keep):
        names = ", ".join(group.name for group in gone)
        journal.say(f"No unit is left of {names}: {plural(len(gone), 'group')} whose branches have left the graph.")
    trained = with_constants(ready, pruned.weights)
    small, masked = shrink(trained, units, pruned.keep), mask(trained, units, pruned.keep)
    feeds: list[Mapping[str, NDArray[Any]]] = [*trial_inputs(trained, seed=seed, inputs=inputs)]
    real = _REAL if batch_is_free(trained) else fixed_batch(trained)
    batch = next(iter(training.held_out.batches(real, pad_last=True)))
    feeds.append({**batch.inputs, **training.samples.held})
    found = prove(masked, small, feeds, kept=lambda name, shape: units.positions(name, pruned.keep, shape))
    journal.notes += [f"Verified within rounding: output {line}." for line in found.within_noise]
    if found.blind:
        names = ", ".join(found.blind)
        journal.warnings.append(f"Hardly depends on the input: {names}. The verification says little about it.")
    if found.held_still:
        journal.warnings.append(about_drawing(found.held_still))
    more = stored_bytes(small) - stored_bytes(given)
    if more > 0:
        journal.warnings.append(
            f"The weights need {more:,} bytes more than the original's: some that the graph computes were "
            "written out to be cut. --ignore leaves their groups to the graph."
        )
    if not found.passed and units.inexact:
        names = ", ".join(units.inexact)
        journal.warnings.append(f"Pruned, as asked, through operators that mix channels: {names}.")
    return small, require(found, inexact=units.inexact)
