"""ADMM over a trainer: train weights and gates, project, step the duals, until the plan stands.

    minimise L(W, v)  subject to  |W_i|_0 <= l_i,  v in {0,1}^n,  cost(v) <= B

Source: Lee & Lee, "DNN compression by ADMM-based joint pruning", Knowledge-Based Systems 239, 2022; the duals are
scaled and the penalties squared throughout.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import KeepArray, Problem, Trainer
from onnxadmm.admm.schedule import Moment, Schedule
from onnxadmm.admm.selection import refuse_unreachable
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.settle import settle
from onnxadmm.admm.state import State, fill, number, part, under
from onnxadmm.admm.steps import Steps
from onnxadmm.errors import CheckpointError, DataError, DivergedError

Batch = TypeVar("Batch")
MaskArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Record:
    """What one ADMM iteration left behind.

    Attributes:
        iteration: from 1.
        epoch: passes over the data so far, a fraction within an epoch.
        loss: mean over the iteration's batches, without penalties.
        connection_primal: ``|W - Z1|`` over all connection weights.
        connection_dual: ``rho |Z1 - Z1_before|``.
        neuron_primal: ``|v - Z|``; for two splittings the root of the sum of squares.
        neuron_dual: ``rho |Z - Z_before|``, likewise.
        connection_rho: penalty of the connections.
        neuron_rho: penalty of the gates.
        budget: budget of the moment, in the cost's unit.
        cost: exact cost of the units that would stay now.
        kept: number of units that would stay now.
        learning_rate: of the iteration's last step.
    """

    iteration: int
    epoch: float
    loss: float
    connection_primal: float
    connection_dual: float
    neuron_primal: float
    neuron_dual: float
    connection_rho: float
    neuron_rho: float
    budget: float
    cost: float
    kept: int
    learning_rate: float


@dataclass(frozen=True)
class Solution:
    """What the run decided; the trainer's weights are left as that network, gates multiplied in and zeros set.

    Attributes:
        keep: units that stay, bool ``[unit_count]``.
        zeros: entries to be held at zero by weight name, True where zero; in full shape, entries that a removed
            unit takes along are True as well. Empty when connections are left alone.
        history: one record per iteration.
    """

    keep: KeepArray
    zeros: Mapping[str, MaskArray]
    history: tuple[Record, ...]


def solve(
    trainer: Trainer[Batch],
    problem: Problem,
    *,
    batches: Callable[[int, int], Iterable[Batch]],
    steps_per_epoch: int,
    settings: Settings,
    on_iteration: Callable[[Record], None] | None = None,
    on_state: Callable[[State], None] | None = None,
    resume: State | None = None,
    together: Callable[[Steps[Batch], Moment], float] | None = None,
) -> Solution:
    """Decide which units and connections stay, training the weights at the same time.

    The run is deterministic when the trainer and the batches are.

    Args:
        batches: batches of an epoch from one of them on, given the numbers of both from 0.
        steps_per_epoch: how many of them make an epoch; fewer end the epoch early with an error.
        on_iteration: called after every iteration; while it runs the trainer's weights are those of the network
            that the run would end with now.
        on_state: given after every iteration all that the rest depends on, but for the trainer's own state (its
            optimizer); the arrays are live.
        resume: such a state of an equal run, to go on from as if nothing had happened; the caller has put the
            trainer's own state back.
        together: takes the training steps of an iteration in place of this process, which is left where they have led,
            and returns the sum of their losses; ``batches`` are not read then.

    Raises:
        CheckpointError: ``resume`` is not the state of such a run.
        BudgetError: the budget is below the least cost the groups can reach; raised before any training.
        DataError: an epoch has fewer batches than stated.
        DivergedError: NaN, or a loss that grew without bound; the trainer's weights are those of the last good
            iteration.
    """
    run = _Run(trainer, problem, steps_per_epoch=steps_per_epoch, settings=settings, together=together)
    if resume is not None:
        run.load(resume)
    return run.go(batches, on_iteration, on_state)


class _Run(Generic[Batch]):
    def __init__(
        self,
        trainer: Trainer[Batch],
        problem: Problem,
        *,
        steps_per_epoch: int,
        settings: Settings,
        together: Callable[[Steps[Batch], Moment], float] | None,
    ) -> None:
        refuse_unreachable(problem)
        if steps_per_epoch < 1:
            raise DataError(
                "the training data",
                expected="at least one batch per epoch",
                found=f"{steps_per_epoch}",
                way_out="give more data or a smaller --batch-size",
            )
        self._problem = problem
        self._settings = settings
        self._steps_per_epoch = steps_per_epoch
        self._schedule = Schedule(
            settings,
            steps=settings.epochs * steps_per_epoch,
            iterations=settings.rounds(steps_per_epoch),
            full=problem.cost.total(problem.started),
            budget=problem.budget,
        )
        self._together = together
        self._steps: Steps[Batch] = Steps(trainer, problem, settings)
        self._weights = self._steps.weights
        self._gated = self._steps.gated
        self._connections = self._steps.connections
        self._neurons = self._steps.neurons
        # Refuses targets of joint mode that cost more than the budget, before any training.
        self._neurons.keep(budget=problem.budget)
        # The last good state: masters and gates.
        self._good = {name: array.copy() for name, array in self._weights.items()}
        self._good_gates = self._neurons.gates.copy()
        self._best_loss = np.inf
        self._rho: tuple[float, float] | None = None
        self._history: list[Record] = []

    def go(
        self,
        batches: Callable[[int, int], Iterable[Batch]],
        on_iteration: Callable[[Record], None] | None,
        on_state: Callable[[State], None] | None,
    ) -> Solution:
        done = len(self._history)
        stream = self._stream(batches, self._schedule.steps_before(done + 1))
        for iteration in range(done + 1, self._schedule.iterations + 1):
            record, keep = self._iterate(iteration, stream)
            self._history.append(record)
            if on_iteration is not None:
                self._finish(keep)
                on_iteration(record)
                self._restore()
            if on_state is not None:
                on_state(self._state())
        keep = settle(self._problem, lambda: self._neurons.keep(budget=self._problem.budget))
        zeros = self._finish(keep)
        return Solution(keep=keep, zeros=zeros, history=tuple(self._history))

    def load(self, state: State) -> None:
        """Take the place of the run whose ``_state`` this is."""
        for name, array in self._weights.items():
            fill(array, state, f"weights/{name}")
        self._gated.store()
        self._neurons.load(part(state, "neurons"))
        self._connections.load(part(state, "connections"))
        self._rho = (number(state, "neuron_rho"), number(state, "connection_rho"))
        self._best_loss = number(state, "best_loss")
        self._history = _history_of(state, at_most=self._schedule.iterations)
        self._remember()

    def _state(self) -> State:
        """All that the rest of the run depends on, between two iterations: masters, not weights with gates."""
        neuron_rho, connection_rho = self._rho if self._rho is not None else (math.nan, math.nan)
        return {
            **under("weights", self._weights),
            **under("neurons", self._neurons.state()),
            **under("connections", self._connections.state()),
            "neuron_rho": np.array(neuron_rho),
            "connection_rho": np.array(connection_rho),
            "best_loss": np.array(self._best_loss),
            "history": np.array([astuple(record) for record in self._history], np.float64),
        }

    def _stream(self, batches: Callable[[int, int], Iterable[Batch]], done: int) -> Iterator[Batch]:
        for epoch in range(done // self._steps_per_epoch, self._settings.epochs):
            count = max(0, done - epoch * self._steps_per_epoch)
            for batch in itertools.islice(batches(epoch, count), self._steps_per_epoch - count):
                count += 1
                yield batch
            if count < self._steps_per_epoch:
                raise DataError(
                    "the training data",
                    expected=f"{self._steps_per_epoch} batches in epoch {epoch}",
                    found=str(count),
                    way_out="state the number of batches that there are",
                )

    def _iterate(self, iteration: int, stream: Iterator[Batch]) -> tuple[Record, KeepArray]:
        """Take one iteration of the paper: for every batch ``b`` a step of weights and gates, then ``Z`` and ``U``.

        W, v = step on L_b(W v) + rho1/2 |W - Z1 + U1|^2 + rho/2 |v - Z + U|^2
        Z    = project(v + U) within the budget        U  = U + v - Z
        Z1   = project(W + U1) of the units kept       U1 = U1 + W - Z1

        ``Z, U`` are one splitting without a dual with ``"admm"``, two of them (box and sphere) with ``"paper"``.
        """
        now = self._schedule.at(iteration)
        self._set_penalties(now)
        if self._together is None:
            total_loss = self._steps.take(
                stream, now.learning_rates, gate_rho=now.gate_rho, connection_rho=now.connection_rho
            )
        else:
            total_loss = self._together(self._steps, now)
        self._refuse_infinite(iteration, total_loss)
        mean_loss = total_loss / len(now.learning_rates)
        self._refuse_divergence(iteration, mean_loss)

        neurons = self._neurons.iterate(budget=now.budget)  # Z, U
        keep = self._neurons.keep(budget=now.budget)
        connections = self._connections.iterate(keep, power=now.connection_power)  # Z1, U1

        self._remember()
        return self._record(iteration, now, loss=mean_loss, neurons=neurons, connections=connections, keep=keep), keep

    def _set_penalties(self, now: Moment) -> None:
        """Let the scaled duals follow penalties that have changed."""
        if self._rho is not None:
            self._neurons.rescale(self._rho[0] / now.gate_rho)
            self._connections.rescale(self._rho[1] / now.connection_rho)
        self._rho = (now.gate_rho, now.connection_rho)

    def _refuse_infinite(self, iteration: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._diverged(iteration, "a loss or gradients that are not finite")

    def _refuse_divergence(self, iteration: int, loss: float) -> None:
        limit = max(self._settings.divergence_factor * self._best_loss, self._settings.divergence_floor)
        if loss > limit:
            raise self._diverged(iteration, f"a mean loss of {loss:g}")
        self._best_loss = min(self._best_loss, loss)

    def _record(
        self,
        iteration: int,
        now: Moment,
        *,
        loss: float,
        neurons: tuple[float, float],
        connections: tuple[float, float],
        keep: KeepArray,
    ) -> Record:
        """What the iteration left behind; ``neurons`` and ``connections`` are how far ``x`` is from ``z``, and ``z``
        from where it was.
        """
        (neuron_primal, neuron_moved), (connection_primal, connection_moved) = neurons, connections
        return Record(
            iteration=iteration,
            epoch=now.steps_after / self._steps_per_epoch,
            loss=loss,
            connection_primal=connection_primal,
            connection_dual=now.connection_rho * connection_moved,
            neuron_primal=neuron_primal,
            neuron_dual=now.gate_rho * neuron_moved,
            connection_rho=now.connection_rho,
            neuron_rho=now.gate_rho,
            budget=now.budget,
            cost=self._problem.cost.total(keep),
            kept=int(np.count_nonzero(keep)),
            learning_rate=now.learning_rates[-1],
        )

    def _remember(self) -> None:
        for name, array in self._weights.items():
            np.copyto(self._good[name], array)
        np.copyto(self._good_gates, self._neurons.gates)

    def _restore(self) -> None:
        for name, array in self._good.items():
            np.copyto(self._weights[name], array)

    def _finish(self, keep: KeepArray) -> dict[str, MaskArray]:
        """Leave the network of ``keep`` in the trainer's weights, which held the masters."""
        zeros = self._connections.zeros(keep)
        self._gated.settle(self._neurons.gates, keep)
        for name, mask in zeros.items():
            self._weights[name][mask] = 0.0
        return zeros

    def _diverged(self, iteration: int, found: str) -> DivergedError:
        self._restore()
        self._gated.store()
        self._gated.write(self._good_gates)
        best, floor = self._settings.divergence_factor * self._best_loss, self._settings.divergence_floor
        most = f"a loss of at most {max(best, floor):g} (the best one was {self._best_loss:g})"
        return DivergedError(
            f"iteration {iteration}",
            expected=most if math.isfinite(self._best_loss) else "a finite loss",
            found=found,
            way_out="lower --learning-rate; the weights are those of the last good iteration",
        )


def _history_of(state: State, *, at_most: int) -> list[Record]:
    rows = state.get("history", np.zeros(0))
    if rows.ndim != 2 or rows.shape[1] != len(fields(Record)) or not 1 <= len(rows) <= at_most:
        raise CheckpointError(
            "the checkpoint, history",
            expected=f"1 to {at_most} iterations",
            found=f"an array of shape {list(rows.shape)}",
            way_out="begin again with --force",
        )
    records = [Record(*row) for row in rows.tolist()]
    return [replace(record, iteration=int(record.iteration), kept=int(record.kept)) for record in records]
