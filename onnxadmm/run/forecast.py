"""What a run will take, told before it trains: seconds by stage, memory and disk; and the epochs that fit a time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.errors import DivergedError, OptionError
from onnxadmm.graph.model import Model
from onnxadmm.report.report import Report, StageTime
from onnxadmm.report.words import duration, plural, size_in_bytes
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.run.behind import seconds_of_refit, stages_behind
from onnxadmm.run.ending import Ending
from onnxadmm.run.journal import Journal
from onnxadmm.run.rates import tried_as_well
from onnxadmm.run.recipe import Recipe
from onnxadmm.run.rehearsal import Pace, pace_of_pruning, pace_of_retraining
from onnxadmm.run.trainings import Training
from onnxadmm.runtime.resident import Gauge
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import Units

#: The stage in which it is measured: what comes after it was foreseen.
STAGE: Final = "forecast"
#: Share of the time that is given out: a forecast is not exact, and a run that is late is worse than one that is early.
GIVEN_OUT: Final = 0.9
#: Iterations of pruning below which a budget falls in too few steps.
_LEAST_ITERATIONS: Final = 4
#: A forecast that was off by more than this share, and by more seconds than anybody waits for, is admitted.
_OFF: Final = 0.25
_OFF_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        stages: seconds by stage that are still to come, in the order of the stages.
        epochs, retrain_epochs: passes over the data while units are chosen and while the small network is trained; 0
            where nothing trains.
        memory_bytes: what training steps or a calibration take beside the model.
        disk_bytes: what the files take at most: the result, and the checkpoint while it is replaced.

    Examples:
        ```python
        expected = oa.forecast("model.onnx", calibrate=images, budget={"macs": 0.5}, bench=False)
        print(expected.describe(), expected.seconds)
        ```
    """

    stages: tuple[StageTime, ...]
    epochs: int
    retrain_epochs: int
    memory_bytes: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Of all stages together."""
        return sum(stage.seconds for stage in self.stages)

    def describe(self) -> str:
        """Return it in one sentence."""
        epochs = {"prune": self.epochs, "retrain": self.retrain_epochs}
        told = (
            f"{stage.name} {duration(stage.seconds)}"
            + (f" ({plural(epochs[stage.name], 'epoch')})" if epochs.get(stage.name) else "")
            for stage in self.stages
        )
        return (
            f"This will take about {duration(self.seconds)}: {', '.join(told)}; about "
            f"{size_in_bytes(self.memory_bytes)} of memory beside the model and the data, and up to "
            f"{size_in_bytes(self.disk_bytes)} on disk."
        )


@dataclass(frozen=True)
class Paces:
    """What was measured of a run, from which its length follows for any number of epochs.

    Attributes:
        steps_per_epoch: batches of an epoch.
        prune: how fast the whole network trains.
        retrain: how fast the small one does; None where it is not trained.
        others: seconds by stage of what comes behind the trainings, whatever the epochs.
        refit: seconds of the refit between them, where there is one.
        shares: of the epochs of pruning and of retraining that are taken, where a run goes on from a larger network.
        macs: multiply-accumulates of a sample of both networks.
        keep: units that the small network has, bool ``[units.count]``; None where nothing was measured.
    """

    steps_per_epoch: int
    prune: Pace
    retrain: Pace | None
    others: tuple[StageTime, ...] = ()
    shares: tuple[float, float] = (1.0, 1.0)
    macs: tuple[float, float] = (1.0, 1.0)
    refit: float = 0.0
    keep: KeepArray | None = field(default=None, compare=False)

    def under(self, macs: float, *, shares: tuple[float, float]) -> "Paces":
        """Return the paces of a run under another budget: what a network takes is a line over its size.

        Args:
            macs: multiply-accumulates of a sample of its small network.
            shares: of the epochs that it takes.
        """
        whole, small = self.macs
        prune = self.prune.known  # the runs before have gone through all samples
        if self.retrain is None or whole <= small:
            return replace(self, shares=shares, prune=prune)
        place, least = (macs - small) / (whole - small), min(1.0, macs / max(1.0, small))

        def between(one: float, other: float) -> float:
            return max(one * least, one + place * (other - one))

        step, look = (between(getattr(self.retrain, name), getattr(self.prune, name)) for name in ("step", "look"))
        retrain = replace(self.retrain, step=step, look=look)
        return replace(self, shares=shares, macs=(whole, macs), prune=prune, retrain=retrain)

    def stages(self, recipe: Recipe) -> tuple[StageTime, ...]:
        """Return the seconds of every stage with the epochs of a recipe."""
        length = self.steps_per_epoch
        settings = recipe.settings(steps_per_epoch=length, share=self.shares[0])
        steps, looks = tried_as_well(settings.epochs * length, settings.rounds(length), tries=recipe.tries_pruning_rate)
        pruning = self.prune.seconds(steps=steps, looks=looks, first=length)
        found = [StageTime("prune", pruning)]
        if recipe.refits(steps_per_epoch=length):
            found.append(StageTime("refit", self.refit))
        if self.retrain is not None:
            found.append(
                stage_of_retraining(self.retrain, recipe, epochs=self.retraining_epochs(recipe), length=length)
            )
        return tuple(stage for stage in (*found, *self.others) if stage.seconds)

    def retraining_epochs(self, recipe: Recipe) -> int:
        """Return the epochs of retraining that a recipe means."""
        return recipe.retraining_epochs(steps_per_epoch=self.steps_per_epoch, share=self.shares[1])

    def seconds(self, recipe: Recipe) -> float:
        """Return the seconds of all stages with the epochs of a recipe."""
        return _sum(self.stages(recipe))


def stage_of_retraining(pace: Pace, recipe: Recipe, *, epochs: int, length: int, first: int = 0) -> StageTime:
    """Return the seconds of retraining.

    Args:
        epochs: that it takes.
        length: steps of an epoch.
        first: of them on samples not yet seen.
    """
    # The network is looked at once before the first epoch.
    steps, looks = tried_as_well(epochs * length, epochs + 1, tries=recipe.retrain_learning_rate is None)
    return StageTime("retrain", pace.seconds(steps=steps, looks=looks, first=first))


def measured_paces(
    training: Training, model: Model, units: Units, problem: Problem, *, ending: Ending, gauge: Gauge | None = None
) -> Paces:
    """Take a few steps of both trainings, of the small one with the units that these few would keep.

    Args:
        model: without gates on activations.
        ending: what is done in the end.
        gauge: of this process's memory; None: it is not looked at.

    Raises:
        DivergedError: the loss is not finite from the start.
    """
    recipe, length = training.recipe, training.steps_per_epoch
    settings = recipe.settings(steps_per_epoch=length)
    prune, keep = pace_of_pruning(training, open_gates(model, units), problem, settings, gauge=gauge)
    retrain = None
    look = whole = prune.evaluation * len(training.held_out) / max(1, len(training.glance))
    if epochs := recipe.retraining_epochs(steps_per_epoch=length):
        retrain = pace_of_retraining(training, shrink(model, units, keep), epochs=epochs, known=True, gauge=gauge)
        look = retrain.evaluation
    macs = Cost(units, "macs")
    refits = recipe.may_refit and not problem.thinned  # where entries go, weights stay as they were trained
    return Paces(
        length,
        prune,
        retrain,
        stages_behind(training, model, ending, small=look, whole=whole),
        macs=(macs.dense(), macs.total(keep)),
        refit=seconds_of_refit(training, model, units, small=look) if refits else 0.0,
        keep=keep,
    )


def forecast_of(paces: Paces, recipe: Recipe, *, file_bytes: int, teacher_bytes: int = 0) -> Forecast:
    """Return what a run with the epochs of a recipe takes.

    Args:
        file_bytes: of the original.
        teacher_bytes: of the weights of a teacher that is not the original.
    """
    both = [pace for pace in (paces.prune, paces.retrain) if pace is not None]
    return Forecast(
        paces.stages(recipe),
        recipe.settings(steps_per_epoch=paces.steps_per_epoch, share=paces.shares[0]).epochs,
        paces.retraining_epochs(recipe),
        memory_bytes=teacher_bytes + max(pace.memory_bytes for pace in both),
        # While a checkpoint is replaced there are two of them; that of retraining holds the pruned network as well.
        disk_bytes=file_bytes + 2 * (file_bytes + max(pace.state_bytes for pace in both)),
    )


def longest(paces: Paces, recipe: Recipe, *, seconds: float) -> Recipe | None:
    """Return the recipe with the epochs of both trainings shortened alike until they fit; as it is where they do.

    Args:
        seconds: that all stages may take.

    Returns:
        None where not even ``shortest`` fits.
    """
    fewest = shortest(paces, recipe)
    most, again = _epochs_of(paces, recipe)
    parts = max(most, again)
    for part in range(parts, 0, -1):
        epochs = max(fewest.epochs or 1, round(most * part / parts))
        tried = replace(recipe, epochs=epochs, retrain_epochs=min(again, max(1, round(again * part / parts))))
        if paces.seconds(tried) <= seconds:
            return tried
    return fewest if paces.seconds(fewest) <= seconds else None


def shortest(paces: Paces, recipe: Recipe) -> Recipe:
    """Return the recipe with as few epochs as a run has at least: four iterations of pruning, one epoch of each."""
    most, again = _epochs_of(paces, recipe)
    length = paces.steps_per_epoch

    def iterations(epochs: int) -> int:
        return replace(recipe, epochs=epochs, retrain_epochs=again).settings(steps_per_epoch=length).rounds(length)

    fewest = next((epochs for epochs in range(1, most) if iterations(epochs) >= _LEAST_ITERATIONS), most)
    return replace(recipe, epochs=fewest, retrain_epochs=min(again, 1))


def least(recipe: Recipe) -> str:
    """Return in words what a run with these epochs, which are the fewest, has."""
    epochs = f"{plural(recipe.epochs or 0, 'epoch')} of pruning"
    return epochs + (f" and {recipe.retrain_epochs} of retraining" if recipe.retrain_epochs else "")


def _epochs_of(paces: Paces, recipe: Recipe) -> tuple[int, int]:
    """The epochs of pruning and of retraining that a recipe means."""
    length = paces.steps_per_epoch
    return recipe.settings(steps_per_epoch=length).epochs, recipe.retraining_epochs(steps_per_epoch=length)


def fitted(paces: Paces, recipe: Recipe, *, minutes: float, spent: float) -> Recipe:
    """Return the recipe with the epochs of both trainings shortened alike until they fit; as it is where they do.

    Args:
        minutes: what the whole run may take.
        spent: seconds of it that are over.

    Raises:
        OptionError: one epoch of each training, and four iterations of pruning, take longer.
    """
    found = longest(paces, recipe, seconds=GIVEN_OUT * 60 * minutes - spent)
    if found is not None:
        return found
    fewest = shortest(paces, recipe)
    raise too_short(minutes, least=least(fewest), needed=spent + paces.seconds(fewest))


def too_short(minutes: float, *, least: str, needed: float, less: str = "give fewer samples") -> OptionError:
    """Return what is raised where not even the least fits.

    Args:
        minutes: what the whole run may take.
        least: in words.
        needed: seconds of a run with that.
        less: what else would shorten it.
    """
    return OptionError(
        f"--max-minutes {minutes:g}",
        expected=f"time for {least}, which is the least",
        found=f"about {duration(needed)} that these would take",
        way_out=f"allow {math.ceil(needed / 6 / GIVEN_OUT) / 10:g} minutes, or {less}",
    )


def foresee(
    training: Training,
    model: Model,
    units: Units,
    problem: Problem,
    *,
    ending: Ending,
    minutes: float | None,
    gauge: Gauge | None = None,
) -> tuple[Paces | None, Recipe]:
    """Measure what a run that trains will take, and shorten its epochs where they have to fit a time.

    Args:
        model, ending, gauge: as for ``measured_paces``.
        minutes: what the whole run may take; None: any time.

    Returns:
        What was measured, None where the loss is not finite from the start; and the recipe to go on with.

    Raises:
        OptionError: not even the least fits.
        DivergedError: the loss is not finite, and there is a time to fit.
    """
    journal, recipe = training.journal, training.recipe
    with journal.stage(STAGE):
        try:
            paces = measured_paces(training, model, units, problem, ending=ending, gauge=gauge)
        except DivergedError:
            if minutes is not None:
                raise
            return None, recipe
    if minutes is not None:
        recipe = fitted(paces, recipe, minutes=minutes, spent=sum(journal.seconds().values()))
    return paces, recipe


def held_against(report: Report, forecast: Forecast | None, journal: Journal) -> Report:
    """Return a report with what was expected, and say where it came otherwise."""
    if forecast is None:
        return report
    sentences = about_off(report.stages, forecast)
    for sentence in sentences:
        journal.progress.note(sentence)
    return replace(report, forecast=forecast.stages, simplified=(*report.simplified, *sentences))


def about_off(stages: Iterable[StageTime], forecast: Forecast) -> tuple[str, ...]:
    """Return a sentence where a run took much longer or much shorter than it was expected to; none where it did not."""
    told = tuple(stages)
    names = [stage.name for stage in told]
    took = _sum(told[names.index(STAGE) + 1 :] if STAGE in names else told)
    if abs(took - forecast.seconds) <= max(_OFF * took, _OFF_SECONDS):
        return ()
    return (f"The run took {duration(took)}, not the {duration(forecast.seconds)} that were expected.",)


def _sum(stages: Iterable[StageTime]) -> float:
    return sum(stage.seconds for stage in stages)
