"""A training that several machines take: what each is told, and what the driver makes of their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import Problem
from onnxadmm.admm.schedule import Moment
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.state import State
from onnxadmm.admm.steps import Steps
from onnxadmm.cluster.consensus import Consensus
from onnxadmm.cluster.halves import Halves, Rounding
from onnxadmm.cluster.rounds import Asked, Rounds
from onnxadmm.report.words import plural, size_in_bytes
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """A training, as a machine begins it.

    Attributes:
        model: the network in the form that trains, as bytes.
        batch_statistics: as ``OrtTrainer`` takes them.
        names: of the weights, in the order in which they are sent.
        epochs, weight_decay: of the whole training.
        orders: number of the first order of the samples.
        problem, settings: of pruning; None while the small network is retrained.
        zeros: entries that stay zero while it is.
    """

    model: bytes
    batch_statistics: frozenset[str]
    names: tuple[str, ...]
    epochs: int
    weight_decay: float
    orders: int
    problem: Problem | None
    settings: Settings | None
    zeros: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Order:
    """A round, as a machine takes it.

    Attributes:
        asked: which machine, and who else is there.
        first: steps of one machine since the training began.
        rates: learning rate of each step.
        weights: where all begin, one behind the other; to a machine that took the round before, how far that has moved.
        halves: whether the answer is how far the weights have moved, in half precision.
        forgets: whether all copies begin without duals: one that is not there has taken its own with it, and those of
            the others would no longer add up to zero.
        penalty: of leaving the mean of all.
        gate_rho, connection_rho, aims: of pruning, see ``Steps``.
        optimizer: the state it begins with, for a machine that has none.
    """

    asked: Asked
    first: int
    rates: tuple[float, ...]
    weights: FloatArray | Halves
    halves: bool
    forgets: bool
    penalty: float
    gate_rho: float
    connection_rho: float
    aims: State
    optimizer: State


@dataclass(frozen=True)
class Answer:
    """What a round has left on a machine.

    Attributes:
        weights: all of them, or how far they have moved from where the round began.
        loss: sum over the steps.
        gradient: norm of the last step's gradient.
        moved: of the gates while units are chosen, see ``Steps``.
        optimizer: its state; of the first machine alone, for whoever comes later.
    """

    weights: FloatArray | Halves
    loss: float
    gradient: float
    moved: State
    optimizer: State


class Together:
    """One training over machines, seen from the driver, whose trainer holds the mean of theirs after every round.

    Pruning draws the copies together. Retraining takes the mean of copies that nothing draws: its constraint is
    settled, all parts of the data are alike, and a penalty is in the way of long rounds.

    While units are chosen ``n`` machines step further by the root of ``n``. Adam divides by the root of the mean square
    of a gradient, most of which is noise (Malladi et al., "On the SDEs and scaling rules for adaptive gradient
    algorithms", 2022), and of one n-th of a batch that is larger by the root of ``n``: their mean would move less than
    one machine.

    Args:
        rounds: over the machines.
        job: what they begin.
        trainer: of the same network; it takes no steps.
        local_steps: most steps of a round.

    Attributes:
        sent, received: bytes of all arrays so far.
        rounds_taken: how many rounds that were.
    """

    def __init__(
        self, rounds: "Rounds[Job, Order, Answer]", job: Job, trainer: OrtTrainer, *, local_steps: int
    ) -> None:
        self._rounds = rounds
        self._trainer = trainer
        self._names = job.names
        self._local_steps = local_steps
        rho = 0.0 if job.problem is None else None
        self._consensus: Consensus[np.float32] = Consensus(packed(trainer.weights, job.names), rho)
        self._start: FloatArray | None = None
        self._rounding: Rounding[np.float32] = Rounding(len(self._consensus.mean), np.float32)
        self._rho = 0.0
        self._forgets = False
        self._told: dict[int, int] = {}
        self.sent = self.received = self.rounds_taken = 0
        rounds.begin(job)

    def prune(self, steps: Steps[Batch], now: Moment) -> float:
        """Take the steps of an iteration; return the sum of their losses, as one machine would."""
        total, first = 0.0, now.steps_after - len(now.learning_rates)
        further = self._rounds.crew.count**0.5
        for rates in self._cut([further * rate for rate in now.learning_rates]):
            heard = self._round(first, rates, gate=now.gate_rho, connection=now.connection_rho, aims=steps.aims())
            moved = [answer.moved for answer in heard]
            steps.place({name: np.mean([each[name] for each in moved], axis=0) for name in moved[0]})
            total += _loss_of(heard)
            first += len(rates)
        return total

    def retrain(self, first: int, rates: Sequence[float]) -> float:
        """Take steps of retraining, so many of one machine behind the first; return the sum of their losses."""
        total = 0.0
        for part in self._cut(rates):
            total += _loss_of(self._round(first, part))
            first += len(part)
        return total

    def describe(self, what: str) -> str:
        """Return a sentence on what the machines have cost."""
        rounds, count = self._rounds, self._rounds.crew.count
        told = f"{what} took {plural(self.rounds_taken, 'round')} over {plural(count, 'machine')}"
        told += f", {size_in_bytes(self.sent)} sent and {size_in_bytes(self.received)} received"
        odd = [f"{plural(rounds.late, 'answer')} came late"] if rounds.late else []
        odd += [f"{plural(rounds.dropped, 'answer')} too late"] if rounds.dropped else []
        lost = sum(rounds.lost.values())
        odd += [f"machines were lost {plural(lost, 'time')}"] if lost else []
        return f"{told}; so far {', '.join(odd)}." if odd else f"{told}."

    def _cut(self, rates: Sequence[float]) -> list[tuple[float, ...]]:
        """Cut steps into rounds of nearly equal length."""
        count = -(-len(rates) // self._local_steps)
        ends = [number * len(rates) // count for number in range(count + 1)]
        return [tuple(rates[ends[number] : ends[number + 1]]) for number in range(count)]

    def _round(
        self,
        first: int,
        rates: tuple[float, ...],
        *,
        gate: float = 0.0,
        connection: float = 0.0,
        aims: State | None = None,
    ) -> list[Answer]:
        """Take a round, and leave in the trainer what it has led to; return the answers that were not late."""
        start, moved = self._begun()
        state = {name: np.array(array) for name, array in (aims or {}).items()}
        present: set[int] = set()

        def order(asked: Asked) -> Order:
            present.update(asked.present)
            follows = not asked.fresh and self._told.get(asked.machine) == asked.round - 1
            self._told[asked.machine] = asked.round
            made = Order(
                asked=asked,
                first=first,
                rates=rates,
                weights=moved if follows else start,
                halves=self._rounds.crew.count > 1,
                forgets=self._forgets or asked.fresh,
                penalty=self._consensus.penalty(len(asked.present)),
                gate_rho=gate,
                connection_rho=connection,
                aims=state,
                optimizer={name: np.array(array) for name, array in self._trainer.state().items()}
                if asked.fresh
                else {},
            )
            self.sent += made.weights.nbytes + _bytes_of(made.aims) + _bytes_of(made.optimizer)
            return made

        heard = self._rounds.take(order)
        self.rounds_taken += 1
        for each in heard:
            answer = each.answer
            self.received += answer.weights.nbytes + _bytes_of(answer.moved) + _bytes_of(answer.optimizer)
            if answer.optimizer:
                self._trainer.load(answer.optimizer)
        timely = [each.answer for each in heard if each.round == self._rounds.number]
        self._forgets = len(heard) > len(timely) or len(timely) < len(present)
        # What a late one has moved counts from here, as if its round had begun where this one did.
        self._consensus.gather([placed(each.answer.weights, start) for each in heard], timely[0].gradient)
        unpack(self._consensus.mean, self._trainer.weights, self._names)
        return timely

    def _begun(self) -> tuple[FloatArray, FloatArray | Halves]:
        """Return where a round begins, to the bit on all machines, and what takes one there from where the last began.

        That is the mean that the trainer holds; on several machines what half precision makes of the way to it, but for
        the first round.
        """
        mean = packed(self._trainer.weights, self._names)
        if self._start is None or self._rounds.crew.count == 1:
            self._start = mean
            return mean, mean
        if self._forgets:
            self._rounding.scale(0.0)
        moved = self._rounding.halved(mean, self._start)
        if self._consensus.rho > 0:  # as each machine scales its dual
            self._rounding.scale(self._rho / self._consensus.rho)
        self._rho = self._consensus.rho
        self._start = moved.added_to(self._start)
        return self._start, moved


@dataclass(frozen=True)
class Nothing:
    """The cost of units where nobody chooses among them, which is where they train."""

    def total(self, keep: NDArray[np.bool_]) -> float:
        return 0.0

    def marginal(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.zeros(len(keep))


def packed(weights: Mapping[str, FloatArray], names: Sequence[str]) -> FloatArray:
    """Return weights one behind the other, in memory of their own."""
    return np.concatenate([weights[name].reshape(-1) for name in names])


def placed(weights: FloatArray | Halves, known: FloatArray) -> FloatArray:
    """Return weights that were sent as they are, or as how far they have moved from known ones."""
    return weights.added_to(known) if isinstance(weights, Halves) else weights


def slices(weights: Mapping[str, FloatArray], names: Sequence[str]) -> dict[str, slice]:
    """Where each of them lies there."""
    ends = np.cumsum([0, *(weights[name].size for name in names)])
    return {name: slice(int(ends[place]), int(ends[place + 1])) for place, name in enumerate(names)}


def unpack(flat: FloatArray, weights: Mapping[str, FloatArray], names: Sequence[str]) -> None:
    """Write what ``packed`` gave back into weights."""
    for name, where in slices(weights, names).items():
        weights[name].reshape(-1)[:] = flat[where]


def _loss_of(heard: Sequence[Answer]) -> float:
    return sum(each.loss for each in heard) / len(heard)


def _bytes_of(state: State) -> int:
    return sum(array.nbytes for array in state.values())
