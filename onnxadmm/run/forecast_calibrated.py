"""What a run that calibrates will take, told before it begins, and the epochs of retraining that fit a time."""

import time
from dataclasses import dataclass, replace

from onnxadmm.admm.problem import Problem
from onnxadmm.calibrate.expect import Work
from onnxadmm.graph.model import Model
from onnxadmm.report.report import StageTime
from onnxadmm.run.behind import guessed, stages_behind
from onnxadmm.run.ending import Ending
from onnxadmm.run.forecast import GIVEN_OUT, Forecast, stage_of_retraining, too_short
from onnxadmm.run.recipe import Recipe
from onnxadmm.run.rehearsal import Pace, pace_of_retraining
from onnxadmm.run.trainings import Training
from onnxadmm.units.units import Units


@dataclass(frozen=True)
class CalibratedPaces:
    """What was measured of a run that calibrates, from which its length follows for any number of epochs.

    Attributes:
        calibration: what the calibration expects of itself.
        steps_per_epoch: batches of an epoch.
        retrain: how fast the small network trains; None where it is not trained.
        others: seconds by stage of what comes behind, whatever the epochs.
        left: share of the network that may stay.
    """

    calibration: Work
    steps_per_epoch: int
    retrain: Pace | None
    others: tuple[StageTime, ...]
    left: float

    def retraining_epochs(self, recipe: Recipe) -> int:
        """Return the epochs of retraining that a recipe means."""
        return recipe.retraining_epochs(steps_per_epoch=self.steps_per_epoch, left=self.left)

    def stages(self, recipe: Recipe) -> tuple[StageTime, ...]:
        """Return the seconds of every stage with the epochs of a recipe."""
        found, length = [StageTime("calibrate", self.calibration.seconds)], self.steps_per_epoch
        if self.retrain is not None:
            epochs = self.retraining_epochs(recipe)
            found.append(stage_of_retraining(self.retrain, recipe, epochs=epochs, length=length, first=length))
        return (*found, *(stage for stage in self.others if stage.seconds))

    def seconds(self, recipe: Recipe) -> float:
        """Return the seconds of all stages with the epochs of a recipe."""
        return sum(stage.seconds for stage in self.stages(recipe))

    def fitted(self, recipe: Recipe, *, minutes: float, spent: float) -> Recipe:
        """Return the recipe with its epochs of retraining shortened until they fit; as it is where they do.

        Args:
            minutes: what the whole run may take.
            spent: seconds of it that are over.

        Raises:
            OptionError: the calibration and one epoch take longer.
        """
        for epochs in range(self.retraining_epochs(recipe), 0, -1):
            tried = replace(recipe, retrain_epochs=epochs)
            if spent + self.seconds(tried) <= GIVEN_OUT * 60 * minutes:
                return tried
        needed = spent + self.seconds(replace(recipe, retrain_epochs=1))
        least = "the calibration and 1 epoch of retraining"
        raise too_short(minutes, least=least, needed=needed, less="give --effort quick, or fewer samples")

    def forecast(self, recipe: Recipe, *, file_bytes: int, teacher_bytes: int) -> Forecast:
        """Return what a run with the epochs of a recipe takes.

        Args:
            file_bytes: of the original.
            teacher_bytes: of the weights of a teacher that is not the original.
        """
        training = 0 if self.retrain is None else self.retrain.memory_bytes
        return Forecast(
            self.stages(recipe),
            epochs=0,
            retrain_epochs=self.retraining_epochs(recipe),
            memory_bytes=teacher_bytes + round(max(1e6 * self.calibration.megabytes, training)),
            disk_bytes=3 * file_bytes,
        )


def measured_calibration(
    calibration: Work, training: Training, model: Model, units: Units, problem: Problem, *, ending: Ending, left: float
) -> CalibratedPaces:
    """Take a few steps of a network about as small as the one that will be left, and look at it and at the model.

    Args:
        calibration: what the calibration expects of itself.
        model: without gates on activations.
        ending: what is done in the end.
        left: share of the network that may stay.
    """
    small, length = guessed(model, units, problem), training.steps_per_epoch
    looks = []
    for each in (model, small):
        start = time.perf_counter()
        training.metrics(each, training.glance)
        looks.append((time.perf_counter() - start) * len(training.held_out) / max(1, len(training.glance)))
    whole, look = looks
    epochs = training.recipe.retraining_epochs(steps_per_epoch=length, left=left)
    retrain = pace_of_retraining(training, small, epochs=epochs) if epochs else None
    behind = stages_behind(training, model, ending, small=look, whole=whole)
    return CalibratedPaces(calibration, length, retrain, behind, left)
