"""The trainings that a run may have: of the whole network while it is pruned, and of the small one."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.solver import Record, solve
from onnxadmm.admm.state import State, number, part, under
from onnxadmm.graph.constants import constants_by_name, with_constants
from onnxadmm.graph.model import Model, to_proto
from onnxadmm.plan.problem import restrict_to
from onnxadmm.progress import Iteration, Residuals
from onnxadmm.report.words import plural
from onnxadmm.run.ground import Ground
from onnxadmm.run.rates import bearable_rate
from onnxadmm.run.together import Job, Nothing, Together
from onnxadmm.train.losses import Task
from onnxadmm.train.metrics import Metrics, sample_losses
from onnxadmm.train.norm_restore import Network, is_deep
from onnxadmm.train.retrain import Epoch, retrain
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]

#: A network of classes may be so many times worse than one that says nothing while its units go.
_SAYS_NOTHING: Final = 2.0

_IN_VAIN: Final = (
    "Retraining of {epochs} left nothing better on held-out data than the network before it, which is the result. "
    "Samples that the original was trained on favour what it was."
)

#: Epochs of retraining draw other orders of the samples than those of pruning.
_RETRAINING_ORDERS: Final = 1_000_000


@dataclass(frozen=True)
class Pruned:
    """What pruning decided.

    Attributes:
        keep: units that stay, bool ``[units.count]``.
        zeros: pruned connections by weight name, True where zero; empty when connections were left alone.
        weights: of the whole network, trained, gates multiplied in and zeros set.
    """

    keep: KeepArray
    zeros: Mapping[str, NDArray[np.bool_]]
    weights: Mapping[str, FloatArray]

    def state(self) -> State:
        """All of it, for a checkpoint."""
        return {"keep": self.keep, **under("zeros", self.zeros), **under("weights", self.weights)}


@dataclass(frozen=True)
class Training(Ground):
    """The trainings that a run may have."""

    def prune(
        self,
        model: Model,
        problem: Problem,
        *,
        keep_state: Callable[[State], None],
        resume: State,
        part_of_epochs: float = 1.0,
    ) -> Pruned:
        """Choose units and connections while the network trains.

        Args:
            model: with its gates on activations open.
            part_of_epochs: share of the recipe's epochs that is taken, at least one.
            keep_state: given after every iteration all that the rest depends on, live.
            resume: the last such state of an equal run that was interrupted, in either training; empty without.

        Raises:
            DivergedError: training blew up.
            CheckpointError: ``resume`` is not the state of such a run.
        """
        settings = self.recipe.settings(steps_per_epoch=self.steps_per_epoch, share=part_of_epochs)
        self.journal.more_is_better = self.figure.more_is_better if self.figure else self.loss.task is not Task.MSE
        if self.figure is not None:
            better = "more" if self.figure.more_is_better else "less"
            self.journal.progress.note(f"Held-out figures are {self.figure.name}, which decides: {better} is better.")
        elif self.loss.task is Task.MSE:
            # In the unit of the numbers, squared: an exact network starts at 0, and may rise from there.
            self.journal.progress.note(
                "Held-out figures are mean square errors against "
                f"{'the labels' if self.held_out.has_labels else self.who_teaches}: less is better."
            )
        # An exact network starts at 0, and may rise from there: numbers in their unit, squared, and a student to what
        # answers that say nothing lose, which the temperature multiplies.
        if self.loss.task is Task.MSE:
            floor = settings.divergence_factor * self._silent_loss()
        else:
            floor = _SAYS_NOTHING * self._silent_loss() if self.teacher is not None else 0.0
        settings = replace(settings, divergence_floor=max(settings.divergence_floor, floor))
        with self.journal.stage("prune", total=settings.rounds(self.steps_per_epoch)):
            pruned = pruned_of(part(resume, "pruned"))
            if pruned is None:
                network = self.network(model)
                with self.trainer(network, epochs=settings.epochs, weight_decay=0.0) as trainer:
                    pruned = self._prune(model, network, problem, trainer, settings, keep_state, part(resume, "prune"))
                keep_state(under("pruned", pruned.state()))
            return pruned

    def _prune(
        self,
        model: Model,
        network: Network,
        problem: Problem,
        trainer: OrtTrainer,
        settings: Settings,
        keep_state: Callable[[State], None],
        resume: State,
    ) -> Pruned:
        glance = self.glance

        def report(record: Record) -> None:
            value = self.look(model, network, trainer, glance).deciding
            self.journal.tell(_row_of(record, value, connections=bool(problem.thinned)))

        def keep(state: State) -> None:
            trained = under("prune/trainer", trainer.state())
            keep_state({**under("prune/solver", state), **trained, "prune/rate": np.array(settings.learning_rate)})

        if resume:
            trainer.load(part(resume, "trainer"))
            settings = replace(settings, learning_rate=self._found_before(resume, settings.learning_rate))
        elif self.recipe.tries_pruning_rate:
            # Several machines step further while units are chosen, and so does the trial, on whole batches.
            further, option = self.machines**0.5, "--learning-rate"
            peak, epochs = further * settings.learning_rate, settings.epochs
            peak = bearable_rate(self, model, network, trainer, peak=peak, epochs=epochs, option=option)
            settings = replace(settings, learning_rate=peak / further)
        restricted = self.restricted(problem, model, trainer)
        team = self._team(network, trainer, epochs=settings.epochs, problem=restricted, settings=settings)
        with self.epochs() as batches:
            solution = solve(
                trainer,
                restricted,
                batches=batches,
                steps_per_epoch=self.steps_per_epoch,
                settings=settings,
                on_iteration=report,
                on_state=keep,
                resume=part(resume, "solver") if resume else None,
                together=None if team is None else team.prune,
            )
        if team is not None:
            self.journal.say(team.describe("Pruning"))
        weights = {name: np.array(array) for name, array in self.weights(network, trainer).items()}
        return Pruned(solution.keep, solution.zeros, _without(weights, problem.held))

    def restricted(self, problem: Problem, model: Model, trainer: OrtTrainer) -> Problem:
        """The problem of the weights that train, and that the loss sees."""
        return restrict_to(problem, trainer.weights, unseen=self.unseen(model))

    def unseen(self, model: Model) -> Set[str]:
        """Names of a model's constants that the loss does not depend on."""
        seen = {name for name, value in constants_by_name(self.shown(model)).items() if value.uses()}
        return constants_by_name(model).keys() - seen

    def retrain(
        self,
        small: Model,
        pruned: Pruned,
        *,
        keep_state: Callable[[State], None],
        resume: State,
        part_of_epochs: float = 1.0,
        left: float = 0.0,
    ) -> Model:
        """Train the small network, its zeros held; return it at its best on held-out data.

        Args:
            keep_state, resume, part_of_epochs: as for ``prune``.
            left: share of the whole network that was to stay.

        Raises:
            DivergedError, CheckpointError: likewise.
        """
        epochs = self.recipe.retraining_epochs(steps_per_epoch=self.steps_per_epoch, share=part_of_epochs, left=left)
        if epochs == 0:
            return small
        network = self.network(small)

        def shipped() -> Model:
            return with_constants(small, self.weights(network, trainer))

        measured: list[Metrics] = []

        def score(_: Mapping[str, FloatArray]) -> float:
            measured[:] = [self.metrics(shipped(), self.held_out)]
            return measured[0].goodness

        with (
            self.journal.stage("retrain", total=epochs),
            self.trainer(network, epochs=epochs, weight_decay=self.recipe.retrain_weight_decay) as trainer,
            self.epochs() as batches,
        ):
            zeros = {name: trainer.weights[name] == 0 for name in pruned.zeros if name in trainer.weights}
            steps, begun = self.steps_per_epoch, part(resume, "retrain")
            peak = self.recipe.retraining_rate(deep=is_deep(small))
            if begun:
                peak = self._found_before(begun, peak)
            elif self.recipe.retrain_learning_rate is None:
                option = "--retrain-learning-rate"
                peak = bearable_rate(
                    self, small, network, trainer, peak=peak, epochs=epochs, option=option, zeros=zeros
                )
            decided = {**under("pruned", pruned.state()), "retrain/rate": np.array(peak)}
            team = self._team(
                network, trainer, epochs=epochs, weight_decay=self.recipe.retrain_weight_decay, zeros=zeros
            )
            kept = retrain(
                trainer,
                zeros=zeros,
                batches=lambda epoch: batches(epoch + _RETRAINING_ORDERS, 0),
                steps_per_epoch=steps,
                epochs=epochs,
                peak=peak,
                score=score,
                on_epoch=lambda epoch: self.journal.tell(_row_of_epoch(epoch, measured[0].deciding)),
                on_state=lambda state: keep_state({**decided, **under("retrain", state)}),
                resume=begun or None,
                together=None if team is None else lambda epoch, rates: team.retrain(epoch * steps, rates),
            )
            if team is not None:
                self.journal.say(team.describe("Retraining"))
            if not kept:
                self.journal.say(_IN_VAIN.format(epochs=plural(epochs, "epoch")))
            return shipped()  # the trainer holds the best weights

    def _found_before(self, state: State, usual: float) -> float:
        """The rate at which an interrupted training goes on."""
        rate = number(state, "rate")
        if rate != usual:
            self.journal.say(f"The highest learning rate is {rate:g}, as was found before the interruption.")
        return rate

    def _silent_loss(self) -> float:
        """The mean loss of a network whose outputs are all zero, on some held-out samples."""
        glance, total = self.glance, 0.0
        for batch in glance.batches(self.recipe.batch_size):
            whole = batch if self.teacher is None else self.teacher.label(batch)
            like = whole.teacher if whole.teacher is not None else whole.labels
            assert like is not None  # there are labels or a teacher
            total += float(sample_losses(np.zeros(like.shape), whole.labels, whole.teacher, self.loss).sum())
        return total / len(glance)

    def _team(
        self,
        network: Network,
        trainer: OrtTrainer,
        *,
        epochs: int,
        weight_decay: float = 0.0,
        problem: Problem | None = None,
        settings: Settings | None = None,
        zeros: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> Together | None:
        """Have the machines begin a training; None where there are none.

        Args:
            trainer: of the same network, in this process.
            problem, settings: of pruning.
            zeros: of retraining.
        """
        if self.rounds is None:
            return None
        job = Job(
            model=bytes(to_proto(network.model).SerializeToString()),
            batch_statistics=network.batch_statistics,
            names=tuple(trainer.weights),
            epochs=epochs,
            weight_decay=weight_decay,
            orders=0 if problem is not None else _RETRAINING_ORDERS,
            problem=None if problem is None else replace(problem, cost=Nothing()),
            settings=settings,
            zeros=dict(zeros or {}),
        )
        return Together(self.rounds, job, trainer, local_steps=self.recipe.local_steps)


def pruned_of(state: State) -> Pruned | None:
    """Return what ``Pruned.state`` gave; None for an empty state."""
    return Pruned(state["keep"], part(state, "zeros"), part(state, "weights")) if state else None


def _without(weights: Mapping[str, FloatArray], names: frozenset[str]) -> dict[str, FloatArray]:
    return {name: array for name, array in weights.items() if name not in names}


def _row_of(record: Record, held_out: float, *, connections: bool) -> Iteration:
    pruned = Residuals(record.connection_primal, record.connection_dual, record.connection_rho)
    return Iteration(
        stage="prune",
        iteration=record.iteration,
        epoch=record.epoch,
        loss=record.loss,
        heldout=held_out,
        learning_rate=record.learning_rate,
        neurons=Residuals(record.neuron_primal, record.neuron_dual, record.neuron_rho),
        connections=pruned if connections else None,
        cost=record.cost,
        budget=record.budget,
        kept_units=record.kept,
    )


def _row_of_epoch(epoch: Epoch, held_out: float) -> Iteration:
    return Iteration(
        stage="retrain",
        iteration=epoch.epoch,
        epoch=float(epoch.epoch),
        loss=epoch.loss,
        heldout=held_out,
        learning_rate=epoch.learning_rate,
        neurons=None,
        connections=None,
        cost=None,
        budget=None,
        kept_units=None,
    )
