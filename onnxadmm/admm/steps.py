"""The training steps between two z-steps, which are all that several machines take apart."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.connections import Connections
from onnxadmm.admm.gates import GatedWeights
from onnxadmm.admm.neurons import make_neurons
from onnxadmm.admm.problem import Problem, Trainer
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.state import State, fill, part, under

Batch = TypeVar("Batch")


class Steps(Generic[Batch]):
    """Weights and gates that train, with what draws them to where the last z-step was.

    Args:
        trainer: of the network.
        problem: only what gates and connections are of is looked at.
        settings: of the run.

    Attributes:
        weights: the trainer's live ones; between two steps the masters, without gates.
        gated, connections, neurons: what the steps change, and what draws them.
    """

    def __init__(self, trainer: Trainer[Batch], problem: Problem, settings: Settings) -> None:
        self._trainer = trainer
        self.weights = dict(trainer.weights)
        gradients = dict(trainer.gradients)
        self.gated = GatedWeights(
            self.weights, gradients, readers=problem.readers, unit_count=problem.unit_count, held=problem.held
        )
        self.connections = Connections(
            problem, weights=self.weights, gradients=gradients, per_layer=settings.mode == "joint"
        )
        self.neurons = make_neurons(problem, settings)

    def take(
        self,
        batches: Iterable[Batch],
        rates: Sequence[float],
        *,
        gate_rho: float,
        connection_rho: float,
        pull: Callable[[], None] | None = None,
    ) -> float:
        """For every batch ``b`` take a step of weights and gates; return the sum of the losses.

        ``W, v = step on L_b(W v) + rho1/2 |W - Z1 + U1|^2 + rho/2 |v - Z + U|^2``

        Where a loss or gradient is not finite the steps end: NaN or infinity is returned.

        Args:
            batches: one for each rate; no more are taken.
            rates: learning rate of each step.
            gate_rho, connection_rho: penalties.
            pull: adds to the trainer's gradients whatever else draws the weights.
        """
        total = 0.0
        for rate, batch in zip(rates, batches, strict=False):  # the rates come first: no batch is lost
            loss, gradient = self._gradients(batch)  # dL/dW lies in the trainer
            if not math.isfinite(loss) or not np.isfinite(gradient).all():
                return loss if not math.isfinite(loss) else math.nan
            self.connections.add_penalty(connection_rho)
            if pull is not None:
                pull()
            self._trainer.update(rate)  # W
            self.gated.store()
            self.neurons.step(gradient, rho=gate_rho)  # v
            total += loss
        return total

    def aims(self) -> State:
        """What the steps are drawn to, and the gates that they begin with; live."""
        return {
            **under("neurons", self.neurons.state()),
            **under("moved", self.neurons.moved()),
            **under("connections", self.connections.aims()),
        }

    def aim(self, state: State) -> None:
        """Take up what ``aims`` gave elsewhere."""
        self.neurons.load(part(state, "neurons"))
        self._move(part(state, "moved"))
        self.connections.aim(part(state, "connections"))

    def place(self, moved: State | None = None) -> None:
        """Stand where steps that were taken elsewhere have led.

        The live weights hold the masters by now.

        Args:
            moved: what ``neurons.moved`` gave there; None: the gates stand there already.
        """
        self.gated.store()
        if moved is not None:
            self._move(moved)

    def _move(self, moved: State) -> None:
        for name, array in self.neurons.moved().items():
            fill(array, moved, name)

    def _gradients(self, batch: Batch) -> tuple[float, NDArray[np.float64]]:
        """Run forward and backward through ``W v``; return the loss and ``dL/dv``, leave ``dL/dW`` in the trainer."""
        self.gated.write(self.neurons.gates)
        loss = self._trainer.backward(batch)
        return loss, self.gated.collect()
