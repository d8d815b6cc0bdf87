"""The two trainings of a run: of the whole network while it is pruned, and of the small one afterwards."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.solver import Record, solve
from onnxadmm.admm.state import State, part, under
from onnxadmm.cluster.rounds import Rounds
from onnxadmm.graph.constants import constants_by_name, with_constants
from onnxadmm.graph.fed import hold_inputs
from onnxadmm.graph.model import Model, to_proto
from onnxadmm.plan.problem import restrict_to
from onnxadmm.progress import Iteration, Residuals
from onnxadmm.run.journal import Journal
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.together import Answer, Job, Nothing, Order, Together
from onnxadmm.train.data.batches import ArrayDataset, Batch
from onnxadmm.train.data.prefetch import prefetch
from onnxadmm.train.evaluate import Teacher, evaluate
from onnxadmm.train.figures import Figure
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.metrics import Metrics, sample_losses
from onnxadmm.train.norm_restore import Network, choose_network, is_deep
from onnxadmm.train.prepare.head import Head
from onnxadmm.train.retrain import Epoch, retrain
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]

#: Held-out samples that are looked at after every iteration; all of them where something is decided.
_GLANCE = 1000

#: A network of classes may be so many times worse than one that says nothing while its units go.
_SAYS_NOTHING: Final = 2.0

#: Share of the training that is told of where it goes by waiting for pictures.
_MUCH_WAITING: Final = 0.1

#: Epochs of retraining draw other orders of the samples than those of pruning, and statistics their own.
_RETRAINING_ORDERS = 1_000_000
_STATISTICS_ORDER = 2_000_000

#: Training samples the statistics of normalisations are measured on.
STATISTICS_SAMPLES = 2048


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
class Training:
    """Data, teacher and recipe of a run, and the two trainings with them.

    Attributes:
        loss: what is minimised, and measured.
        head: what it is taken of.
        samples: what is trained on.
        held_out: what every decision is made with.
        test: what is measured at the end; None without.
        teacher: the original network; None where nothing needs it.
        figure: what decides, and is shown of held-out and test data; None: accuracy, or the loss without one.
        seed: of every random choice.
        rounds: over the machines that take the steps; None: this process does.
    """

    recipe: Recipe
    preprocessing: Preprocessing
    loss: Loss
    head: Head
    samples: ArrayDataset
    held_out: ArrayDataset
    test: ArrayDataset | None
    teacher: Teacher | None
    seed: int
    journal: Journal
    figure: Figure | None = None
    rounds: Rounds[Job, Order, Answer] | None = None

    @property
    def machines(self) -> int:
        """Machines that take the steps, each with its share of a batch."""
        return 1 if self.rounds is None else self.rounds.crew.count

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training data."""
        return len(self.samples) // self.recipe.batch_size

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
                f"{'the labels' if self.held_out.has_labels else 'the original'}: less is better."
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
            self.journal.tell(_row_of(record, value, connections=problem.connection_share < 1))

        def keep(state: State) -> None:
            keep_state({**under("prune/solver", state), **under("prune/trainer", trainer.state())})

        if resume:
            trainer.load(part(resume, "trainer"))
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
        seen = {name for name, value in constants_by_name(self.shown(model)).items() if value.uses()}
        return restrict_to(problem, trainer.weights, unseen=constants_by_name(model).keys() - seen)

    @property
    def glance(self) -> ArrayDataset:
        """The held-out samples that are looked at after every iteration."""
        return self.held_out.take(np.arange(min(_GLANCE, len(self.held_out))))

    def look(self, model: Model, network: Network, trainer: OrtTrainer, data: ArrayDataset) -> Metrics:
        """Measure a model on some held-out samples, as trained so far."""
        return self.metrics(self.as_trained(model, network, trainer), data)

    def as_trained(self, model: Model, network: Network, trainer: OrtTrainer, *, samples: int | None = None) -> Model:
        """Return a model as trained so far, its statistics measured on so many samples.

        Args:
            samples: as for ``statistics_samples``.
        """
        some = self.statistics_samples(samples)
        return with_constants(model, self.weights(network, trainer, samples=some))

    def statistics_samples(self, samples: int | None = None) -> int:
        """Return of how many samples statistics are measured where so many are asked for: those of whole batches.

        Args:
            samples: None: as many as a look while units are chosen takes.
        """
        size = self.recipe.batch_size
        return size * min(self.steps_per_epoch, max(1, (_GLANCE // 2 if samples is None else samples) // size))

    def retrain(
        self,
        small: Model,
        pruned: Pruned,
        *,
        keep_state: Callable[[State], None],
        resume: State,
        part_of_epochs: float = 1.0,
    ) -> Model:
        """Train the small network, its zeros held; return it at its best on held-out data.

        Args:
            keep_state, resume, part_of_epochs: as for ``prune``.

        Raises:
            DivergedError, CheckpointError: likewise.
        """
        epochs = self.recipe.retraining_epochs(steps_per_epoch=self.steps_per_epoch, share=part_of_epochs)
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
            steps = self.steps_per_epoch
            team = self._team(
                network, trainer, epochs=epochs, weight_decay=self.recipe.retrain_weight_decay, zeros=zeros
            )
            retrain(
                trainer,
                zeros=zeros,
                batches=lambda epoch: batches(epoch + _RETRAINING_ORDERS, 0),
                steps_per_epoch=steps,
                epochs=epochs,
                peak=self.recipe.retraining_rate(deep=is_deep(small)),
                warm_up=0.1,
                score=score,
                on_epoch=lambda epoch: self.journal.tell(_row_of_epoch(epoch, measured[0].deciding)),
                on_state=lambda state: keep_state({**under("pruned", pruned.state()), **under("retrain", state)}),
                resume=part(resume, "retrain") or None,
                together=None if team is None else lambda epoch, rates: team.retrain(epoch * steps, rates),
            )
            if team is not None:
                self.journal.say(team.describe("Retraining"))
            return shipped()  # the trainer holds the best weights

    def metrics(self, model: Model, data: ArrayDataset) -> Metrics:
        """Measure a model, with the teacher's answers where there are no labels."""
        teacher = None if data.has_labels else self.teacher
        figure = None if self.figure is None or (self.figure.needs_labels and not data.has_labels) else self.figure
        return evaluate(
            self.shown(model),
            data,
            loss=self.loss,
            threads=self.recipe.threads,
            teacher=teacher,
            figure=figure,
        )

    def shown(self, model: Model) -> Model:
        """A model as it trains: inputs without a batch are constants, and what the loss reads is the only output."""
        return self.head.shown(hold_inputs(model, self.samples.held))

    def _silent_loss(self) -> float:
        """The mean loss of a network whose outputs are all zero, on some held-out samples."""
        glance, total = self.glance, 0.0
        for batch in glance.batches(self.recipe.batch_size):
            whole = batch if self.teacher is None else self.teacher.label(batch)
            like = whole.teacher if whole.teacher is not None else whole.labels
            assert like is not None  # there are labels or a teacher
            total += float(sample_losses(np.zeros(like.shape), whole.labels, whole.teacher, self.loss).sum())
        return total / len(glance)

    def first_batch(self) -> Batch:
        """Return a batch as the data have it, for trying things out.

        Raises:
            DataError: there are too few samples for one.
        """
        return next(iter(self.samples.batches(self.recipe.batch_size, drop_last=True)))

    @property
    def keeps(self) -> bool:
        """Whether later epochs find what the first one has made: answers of the teacher, or decoded pictures."""
        answers = self.teacher is not None and self.loss.needs_teacher and not self.preprocessing.augment
        return answers or (self.samples.decodes and self.preprocessing.cache is not None)

    def apart(self) -> "Training":
        """Return the same with a teacher that has answered nothing so far, and leaves no answers behind."""
        return replace(self, teacher=None if self.teacher is None else self.teacher.apart())

    def of_known(self, batches: int) -> "Training":
        """Return a training with as many samples that are few ones over and over, all of them seen before.

        Args:
            batches: whole ones of different samples.
        """
        size = self.recipe.batch_size
        few = self.samples.take(np.arange(min(len(self.samples), batches * size)))
        for batch in few.batches(size, augment=bool(self.preprocessing.augment)):
            if self.teacher is not None and self.loss.needs_teacher:
                self.teacher.label(batch)
        return self.repeated(few, len(self.samples))

    def repeated(self, samples: ArrayDataset, count: int, *, held_out: ArrayDataset | None = None) -> "Training":
        """Return a training with so many samples: some, over and over.

        Args:
            held_out: what decides; None: as it is.
        """
        whole = samples.take(np.resize(np.arange(len(samples)), count))
        return replace(self, samples=whole, held_out=self.held_out if held_out is None else held_out)

    @property
    def damage(self) -> str:
        """A sentence on the pictures that were left out because they cannot be decoded; empty without any."""
        told = {self.samples.damage, "" if self.test is None else self.test.damage} - {""}
        return " ".join(sorted(told))

    def digest(self) -> str:
        """Sha256 of the samples in their order, their labels and their division, 64 hexadecimal digits."""
        total = hashlib.sha256()
        for samples in (self.samples, self.held_out):
            samples.digest(total)
        if (weighing := self.samples.weighing) is not None and weighing.classes is not None:
            total.update(b"class weights\0" + np.ascontiguousarray(weighing.classes).data)
        return total.hexdigest()

    def network(self, model: Model) -> Network:
        """The model in the form that trains."""
        recipe, together = self.recipe, self.recipe.part_size // self.machines
        return choose_network(
            self.shown(model), recipe.norm, self._statistics_batches, together=together, threads=recipe.threads
        )

    def weights(
        self, network: Network, trainer: OrtTrainer, *, samples: int = STATISTICS_SAMPLES
    ) -> dict[str, FloatArray]:
        """What training has made of the model's constants."""
        return network.finished(trainer, lambda: self._statistics_batches(samples), threads=self.recipe.threads)

    def _statistics_batches(self, samples: int = STATISTICS_SAMPLES) -> Iterator[Batch]:
        """Training data as training sees them, augmented and the same ones every time."""
        generator = np.random.default_rng([self.seed, _STATISTICS_ORDER])
        chosen = self.samples.take(generator.permutation(len(self.samples))[: self.statistics_samples(samples)])
        return chosen.batches(
            self.recipe.batch_size, seed=self.seed, augment=bool(self.preprocessing.augment), drop_last=True
        )

    def trainer(self, network: Network, *, epochs: int, weight_decay: float, tells: bool = True) -> OrtTrainer:
        """Return what trains a network for so many epochs, and say what memory that takes."""
        trainer = OrtTrainer(
            network.model,
            loss=self.loss,
            batch_size=self.recipe.batch_size,
            engine=self.recipe.engine,
            precision=self.recipe.precision,
            threads=self.recipe.threads,
            workers=1 if self.rounds is not None else self.recipe.workers,
            accumulate=self.recipe.accumulate,
            steps=epochs * self.steps_per_epoch,
            weight_decay=weight_decay,
            freeze_untrainable=self.recipe.freeze_untrainable,
            input_shapes=self.samples.sample_shapes,
            batch_statistics=network.batch_statistics,
        )
        if tells:
            self.journal.workers = max(self.journal.workers, trainer.workers)
            self.journal.state_memory(trainer.expected_bytes, processes=trainer.workers)
        return trainer

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

    @contextmanager
    def epochs(self) -> Iterator[Callable[[int, int], Iterator[Batch]]]:
        """Give out the batches of an epoch from one of them on, made while those before are trained on.

        The threads that make them end with the block, whatever ends it.
        """
        with ExitStack() as streams:
            yield lambda epoch, first: streams.enter_context(
                closing(prefetch(self.made(epoch, first), on_wait=self._wait))
            )

    def _wait(self, seconds: float) -> None:
        self.journal.waited += seconds

    @property
    def waiting(self) -> str:
        """A sentence on how long both trainings waited for pictures, where that is much; empty where it is not."""
        spent = self.journal.seconds()
        trained, waited = spent.get("prune", 0.0) + spent.get("retrain", 0.0), self.journal.waited
        if not self.samples.decodes or waited < _MUCH_WAITING * trained:
            return ""
        way = "" if self.preprocessing.cache else ": --cache DIR keeps them decoded"
        return f"Training waited {waited:.0f} of its {trained:.0f} seconds for images to be read and decoded{way}."

    def made(self, epoch: int, first: int, *, machine: int = 0) -> Iterator[Batch]:
        """Make the batches of an epoch from one of them on, whole ones, with what the teacher says of them.

        Args:
            machine: number of the machine, each of which has orders of its own.
        """
        generator = np.random.default_rng([self.seed, epoch, *([machine] if machine else [])])
        batches = self.samples.batches(
            self.recipe.batch_size,
            seed=int(generator.integers(2**31)),
            shuffle=True,
            augment=bool(self.preprocessing.augment),
            drop_last=True,
            first=first,
        )
        for batch in batches:
            yield self.teacher.label(batch) if self.teacher is not None and self.loss.needs_teacher else batch


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
