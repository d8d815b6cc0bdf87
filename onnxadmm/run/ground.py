"""What both trainings of a run stand on: data, teacher, loss and recipe, and what these make of a model."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from onnxadmm.cluster.rounds import Rounds
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.fed import hold_inputs
from onnxadmm.graph.model import Model
from onnxadmm.report.report import THE_ORIGINAL, THE_TEACHER
from onnxadmm.run.journal import Journal
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.together import Answer, Job, Order
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.data.batches import ArrayDataset, Batch
from onnxadmm.train.data.prefetch import prefetch
from onnxadmm.train.evaluate import Predictor, Teacher, evaluate
from onnxadmm.train.figures import Figure
from onnxadmm.train.losses import Loss
from onnxadmm.train.metrics import Metrics
from onnxadmm.train.norm_restore import Network, choose_network
from onnxadmm.train.prepare.head import Head
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]

#: Held-out samples that are looked at after every iteration; all of them where something is decided.
_GLANCE: Final = 1000
#: Share of the training that is told of where it goes by waiting for pictures.
_MUCH_WAITING: Final = 0.1
#: Statistics draw orders of the samples of their own.
_STATISTICS_ORDER: Final = 2_000_000
#: Training samples the statistics of normalisations are measured on.
STATISTICS_SAMPLES: Final = 2048


@dataclass(frozen=True)
class Ground:
    """Data, teacher, loss and recipe of a run.

    Attributes:
        loss: what is minimised, and measured.
        head: what it is taken of.
        samples: what is trained on.
        held_out: what every decision is made with.
        test: what is measured at the end; None without.
        teacher: the original network, or another one; None where nothing needs it.
        figure: what decides, and is shown of held-out and test data; None: accuracy, or the loss without one.
        seed: of every random choice.
        rounds: over the machines that take the steps; None: this process does.
        taught_by: the network that teaches in place of the original; None: the original does.
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
    taught_by: Model | None = None

    @property
    def who_teaches(self) -> str:
        """Whose answers stand for labels where there are none, in words."""
        return THE_ORIGINAL if self.taught_by is None else THE_TEACHER

    @property
    def teacher_bytes(self) -> int:
        """Bytes of the weights of a teacher that is not the original."""
        return 0 if self.taught_by is None else self.taught_by.file_bytes

    @property
    def machines(self) -> int:
        """Machines that take the steps, each with its share of a batch."""
        return 1 if self.rounds is None else self.rounds.crew.count

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training data."""
        return len(self.samples) // self.recipe.batch_size

    @property
    def glance(self) -> ArrayDataset:
        """The held-out samples that are looked at after every iteration."""
        return self.held_out.some(_GLANCE)

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

    def metrics(self, model: Model, data: ArrayDataset) -> Metrics:
        """Measure a model, with the teacher's answers where there are no labels."""
        teacher = None if data.has_labels else self.teacher
        figure = None if self.figure is None or (self.figure.needs_labels and not data.has_labels) else self.figure
        return evaluate(
            self.shown(model),
            data,
            loss=self.loss,
            threads=self.recipe.threads,
            beside=self.beside,
            teacher=teacher,
            figure=figure,
        )

    @property
    def beside(self) -> int:
        """Parts of the samples that run at the same time where no gradient is taken."""
        return self.recipe.beside(usable_cores())

    def predictor(self, model: Model) -> Predictor:
        """Return what runs a model, as it trains, outside of training."""
        return Predictor(
            self.shown(model),
            task=self.loss.task,
            threads=self.recipe.threads,
            beside=self.beside,
        )

    def shown(self, model: Model) -> Model:
        """A model as it trains: inputs without a batch are constants, and what the loss reads is the only output."""
        return self.head.shown(hold_inputs(model, self.samples.held))

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

    def apart(self) -> Self:
        """Return the same with a teacher that has answered nothing so far, and leaves no answers behind."""
        return replace(self, teacher=None if self.teacher is None else self.teacher.apart())

    def of_known(self, batches: int) -> Self:
        """Return the same with as many samples that are few ones over and over, all of them seen before.

        Args:
            batches: whole ones of different samples.
        """
        size = self.recipe.batch_size
        few = self.samples.take(np.arange(min(len(self.samples), batches * size)))
        for batch in few.batches(size, augment=bool(self.preprocessing.augment)):
            if self.teacher is not None and self.loss.needs_teacher:
                self.teacher.label(batch)
        return self.repeated(few, len(self.samples))

    def repeated(self, samples: ArrayDataset, count: int, *, held_out: ArrayDataset | None = None) -> Self:
        """Return the same with so many samples: some, over and over.

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
