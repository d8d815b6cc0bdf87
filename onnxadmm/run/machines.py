"""What a machine of a cluster does: it reads the data, has its part of them, and takes steps as it is told."""

import itertools
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxadmm.admm.steps import Steps
from onnxadmm.cluster.consensus import Copy
from onnxadmm.cluster.dealing import dealt
from onnxadmm.cluster.halves import Rounding
from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.model import Model, from_proto, to_proto
from onnxadmm.progress import SILENT
from onnxadmm.run.journal import Journal
from onnxadmm.run.made_samples import made_samples
from onnxadmm.run.reading import read_training
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.together import Answer, Job, Order, packed, placed, slices, unpack
from onnxadmm.run.trainings import Training
from onnxadmm.train.data.batches import ArrayDataset, Batch
from onnxadmm.train.data.prefetch import prefetch
from onnxadmm.train.norm_restore import Network
from onnxadmm.train.retrain import take_steps
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Site:
    """What a machine needs to take part in a run: all but the data, which it reads itself from where they are.

    Attributes:
        model: as it is pruned, as bytes; the teacher, unless another one is given.
        input_shapes: of it, see ``Model``.
        data: path that every machine has, or arrays.
        made: whether samples are made, without data.
        digest: of the samples, which are the same everywhere.
        recipe, preprocessing, inputs, seed, trains: as ``read_training`` takes them; of a batch it has its share.
        teacher: another network that teaches, as bytes; None: the model does.
    """

    model: bytes
    input_shapes: Mapping[str, tuple[int, ...]]
    data: object
    made: bool
    digest: str
    recipe: Recipe
    preprocessing: Preprocessing
    inputs: Mapping[str, object]
    seed: int
    trains: bool
    teacher: bytes | None = None

    def open(self) -> "Machine":
        """Read the data, on the machine.

        Raises:
            DataError: they cannot be read there, or are others.
        """
        model = replace(from_proto(onnx.ModelProto.FromString(self.model)), input_shapes=self.input_shapes)
        training = read_training(
            model,
            made_samples(model, seed=self.seed, inputs=self.inputs) if self.made else self.data,
            None,
            recipe=self.recipe,
            preprocessing=self.preprocessing,
            inputs=self.inputs,
            seed=self.seed,
            journal=Journal(SILENT),
            trains=self.trains,
            made=self.made,
            teacher=None if self.teacher is None else from_proto(onnx.ModelProto.FromString(self.teacher)),
        )
        found = training.digest()
        if found != self.digest:
            raise DataError(
                "--data",
                expected=f"the data with digest {self.digest[:12]}, as where the run was started",
                found=found[:12],
                way_out="copy the same files to the same path on every machine",
            )
        return Machine(training)


def as_bytes(model: Model) -> bytes:
    """Return a model as a machine is sent it."""
    return bytes(to_proto(model).SerializeToString())


class Machine:
    """One machine's part of a run.

    Args:
        training: with all samples.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self._present: tuple[int, ...] = ()
        self._part: ArrayDataset = training.samples
        self._trainer: OrtTrainer | None = None

    def begin(self, job: Job) -> None:
        """Begin a training; the one before is over."""
        self.end()
        model = from_proto(onnx.ModelProto.FromString(job.model))
        network = Network(model, batch_statistics=job.batch_statistics)
        self._task = job
        self._trainer = trainer = self._training.trainer(
            network, epochs=job.epochs, weight_decay=job.weight_decay, tells=False
        )
        self._places = slices(trainer.weights, job.names)
        size = sum(trainer.weights[name].size for name in job.names)
        self._copy, self._rounding = Copy(size, np.float32), Rounding(size, np.float32)
        self._steps: Steps[Batch] | None = None
        if job.problem is not None and job.settings is not None:
            self._steps = Steps(trainer, job.problem, job.settings)
        self._stream: Generator[Batch, None, None] | None = None
        self._position = 0
        self._gradient = 0.0

    def take(self, order: Order) -> Answer:
        """Take the steps of a round."""
        trainer, job, asked = self._trainer, self._task, order.asked
        assert trainer is not None  # a job has begun
        if order.forgets:
            self._copy.forget()
            self._rounding.scale(0.0)
        if asked.fresh:
            trainer.load(order.optimizer)
        start = placed(order.weights, self._copy.start)
        unpack(start, trainer.weights, job.names)
        self._copy.begin(start, order.penalty)
        pull = partial(self._pull, trainer) if order.penalty else None
        batches = self._batches(order)
        if self._steps is not None:
            self._steps.aim(order.aims)
            self._steps.place()
            loss = self._steps.take(
                batches, order.rates, gate_rho=order.gate_rho, connection_rho=order.connection_rho, pull=pull
            )
            moved = {name: np.array(array) for name, array in self._steps.neurons.moved().items()}
        else:
            loss, moved = take_steps(trainer, batches, order.rates, zeros=job.zeros, pull=pull), {}
        self._position += len(order.rates)
        weights = packed(trainer.weights, job.names)
        told = self._rounding.halved(weights, start) if order.halves else weights
        self._copy.end(placed(told, start))
        first = asked.machine == asked.present[0]
        return Answer(
            weights=told,
            loss=loss,
            gradient=float(np.sqrt(sum(float(np.vdot(g, g)) for g in trainer.gradients.values()))),
            moved=moved,
            optimizer={name: np.array(array) for name, array in trainer.state().items()} if first else {},
        )

    def _pull(self, trainer: OrtTrainer) -> None:
        """Add the gradient of the penalty on leaving the mean of all machines."""
        for name, where in self._places.items():
            trainer.gradients[name].reshape(-1)[:] += self._copy.pull(trainer.weights[name].reshape(-1), where)

    def _batches(self, order: Order) -> Iterator[Batch]:
        """The batches of this machine's part from the order's first step on; what was made ahead is used."""
        if order.asked.present != self._present:
            self._deal(order.asked.machine, order.asked.present)
        if self._stream is None or self._position != order.first:
            self._close()
            self._stream = prefetch(self._made(order.first, order.asked.machine))
            self._position = order.first
        return self._stream

    def _made(self, first: int, machine: int) -> Iterator[Batch]:
        """Pass after pass over the part, each in an order of its own."""
        training = replace(self._training, samples=self._part)
        number, start = divmod(first, training.steps_per_epoch)
        for each in itertools.count(number):
            yield from training.made(each + self._task.orders, start, machine=machine)
            start = 0

    def _deal(self, machine: int, present: tuple[int, ...]) -> None:
        """Have the samples that are this machine's among those that are present."""
        self._close()
        self._present = present
        self._part = part_of(self._training.samples, machine, present)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def end(self) -> None:
        """End the training, if one has begun."""
        if self._trainer is not None:
            self._close()
            self._trainer.close()
            self._trainer = None


def part_of(samples: ArrayDataset, machine: int, present: tuple[int, ...]) -> ArrayDataset:
    """Return the samples of one of the machines that are present, by their contents where these are known."""
    if len(present) == 1:
        return samples
    places = samples.order
    keys = places.astype(np.uint64) if samples.contents is None else samples.contents[places, 0]
    return samples.take(np.flatnonzero(dealt(keys, present) == machine))


def share_of_batch(samples: ArrayDataset, machines: int, *, batch_size: int) -> int:
    """Return how many samples of a batch each machine takes: all together have a batch.

    Raises:
        OptionError: there are more machines than samples in a batch, or than the data have work for.
    """
    present, share = tuple(range(machines)), batch_size // machines
    fewest = min(len(part_of(samples, machine, present)) for machine in present)
    if not 0 < share <= fewest:
        raise OptionError(
            "--cluster",
            expected=f"a share of every batch, and of the data, for each of {machines} machines",
            found=f"--batch-size {batch_size}, and {len(samples)} samples of which one has {fewest}",
            way_out="use fewer machines, or give --batch-size for all of them together",
        )
    return share
