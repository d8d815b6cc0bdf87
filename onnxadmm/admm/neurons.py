"""The two ways the gates move: by importance per cost under a falling budget, or by the paper's box and sphere."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.projections import project_box_budget, project_sphere
from onnxadmm.admm.selection import select, select_per_group
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.splitting import Splitting, norm
from onnxadmm.admm.state import State, fill, part, under

DoubleArray = NDArray[np.float64]


class Neurons(Protocol):
    """Gates with the state that moves them."""

    @property
    def gates(self) -> DoubleArray:
        """``v``, float64 ``[unit_count]``."""
        ...

    def step(self, gradient: DoubleArray, *, rho: float) -> None:
        """Move the gates once, given ``dL/dv`` at the current gates."""
        ...

    def iterate(self, *, budget: float) -> tuple[float, float]:
        """Take the projection and dual steps; return primal residual and, still without rho, dual residual."""
        ...

    def rescale(self, factor: float) -> None:
        """Keep ``rho u`` as it is while ``rho`` becomes ``rho / factor``."""
        ...

    def keep(self, *, budget: float) -> KeepArray:
        """Units that would stay if the run ended now, their exact cost within ``budget``."""
        ...

    def state(self) -> State:
        """All that moves the gates, between two iterations; live."""
        ...

    def load(self, state: State) -> None:
        """Go on from what ``state`` gave."""
        ...

    def moved(self) -> State:
        """All that steps change, since the last iteration; live. Of steps taken apart it is the mean of each array."""
        ...


def make_neurons(problem: Problem, settings: Settings) -> Neurons:
    """Gates of the method that ``settings`` names."""
    if settings.method == "paper":
        return BoxAndSphere(problem, settings)
    return ImportancePerCost(problem, settings)


def _choose(score: DoubleArray, problem: Problem, settings: Settings, budget: float) -> KeepArray:
    if settings.mode == "joint":
        return select_per_group(score, problem, budget=budget)
    return select(score, problem, budget=budget)


class ImportancePerCost:
    """``z`` is the selection by ``h_j / c_j`` under the budget of the moment.

    ``c_j`` is the marginal cost and ``h_j`` a running mean of ``(v_j dL/dv_j)^2``: the squared first-order change of
    the loss when the gate closes from where it stands (Molchanov et al., "Importance estimation for neural network
    pruning", 2019, eq. 8). The factor ``v_j`` matters: without it a closed unit in a network that has just been cut
    looks important, comes back, and the choice never settles.

    While the penalty draws the gates to ``z`` the weights adapt. The gate step is the proximal one of the penalty, so
    that no ``rho`` is too large for it:

        v = argmin_v |v - v_before|^2 / (2 step) + rho/2 |v - z|^2.

    There is no dual: ``z`` does not depend on ``v + u``, so a dual would only make the gates overshoot.
    """

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self._problem = problem
        self._settings = settings
        self.gates: DoubleArray = problem.started.astype(np.float64)
        self._target: DoubleArray = problem.started.astype(np.float64)
        self._sum = np.zeros(problem.unit_count)
        self._steps = np.zeros(())
        self._importance = np.zeros(problem.unit_count)

    def step(self, gradient: DoubleArray, *, rho: float) -> None:
        self._sum += np.square(self.gates * gradient)
        self._steps += 1
        pull = self._settings.gate_step * rho
        self.gates += (pull / (1.0 + pull)) * (self._target - self.gates)

    def iterate(self, *, budget: float) -> tuple[float, float]:
        forget = 1.0 / self._settings.importance_memory
        self._importance += forget * (self._sum / max(float(self._steps), 1.0) - self._importance)
        self._begin()
        target = self.keep(budget=budget).astype(np.float64)
        moved = norm(target - self._target)
        self._target = target
        return norm(self.gates - target), moved

    def rescale(self, factor: float) -> None:
        """Without a dual there is nothing to rescale."""

    def keep(self, *, budget: float) -> KeepArray:
        return _choose(self._importance, self._problem, self._settings, budget)

    def state(self) -> State:
        # The sum over steps is empty between two iterations.
        return {"gates": self.gates, "target": self._target, "importance": self._importance}

    def load(self, state: State) -> None:
        for name, array in self.state().items():
            fill(array, state, name)
        self._begin()

    def moved(self) -> State:
        return {"gates": self.gates, "sum": self._sum, "steps": self._steps}

    def _begin(self) -> None:
        """Forget the steps of the iteration that is over."""
        self._sum[...] = 0.0
        self._steps[...] = 0.0


class BoxAndSphere:
    """The paper's method: ``{0,1}^m`` is the box with the budget (``Z2``) intersected with the sphere (``Z3``).

    The gates descend ``L + rho/2 |v - Z2 + U2|^2 + rho/2 |v - Z3 + U3|^2`` by Adam. Holistic mode has one box over all
    units, with the cost linearised at the units that stand above 1/2; joint mode has a box ``sum(z) <= count`` for
    every group. The sphere is taken per group in both, as ``{0,1}^m`` is a product over groups.

    Source: Lee & Lee, "DNN compression by ADMM-based joint pruning", Knowledge-Based Systems 239, 2022.
    """

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self._problem = problem
        self._settings = settings
        self.gates: DoubleArray = problem.started.astype(np.float64)
        self._box = Splitting(self.gates)
        self._sphere = Splitting(self.gates)
        self._mean = np.zeros(problem.unit_count)
        self._square = np.zeros(problem.unit_count)
        self._steps = np.zeros(())

    def step(self, gradient: DoubleArray, *, rho: float) -> None:
        full = gradient + rho * (2.0 * self.gates - self._box.target - self._sphere.target)
        self._steps += 1
        self._mean += 0.1 * (full - self._mean)
        self._square += 0.001 * (np.square(full) - self._square)
        mean = self._mean / (1.0 - 0.9 ** float(self._steps))
        square = self._square / (1.0 - 0.999 ** float(self._steps))
        self.gates -= self._settings.gate_step * mean / (np.sqrt(square) + 1e-8)

    def iterate(self, *, budget: float) -> tuple[float, float]:
        box_primal, box_moved = self._box.update(self.gates, project=lambda x: self._project_box(x, budget))
        sphere_primal, sphere_moved = self._sphere.update(self.gates, project=self._project_sphere)
        return float(np.hypot(box_primal, sphere_primal)), float(np.hypot(box_moved, sphere_moved))

    def rescale(self, factor: float) -> None:
        self._box.rescale(factor)
        self._sphere.rescale(factor)

    def keep(self, *, budget: float) -> KeepArray:
        # Undo the division by cost: what counts at the end is the gate alone, as in the paper.
        marginal = self._problem.cost.marginal(np.ones(self._problem.unit_count, dtype=np.bool_))
        weight = marginal if self._settings.mode == "holistic" else 1.0
        return _choose(np.abs(self.gates) * weight, self._problem, self._settings, budget)

    def state(self) -> State:
        return {
            **self.moved(),
            **under("box", self._box.state()),
            **under("sphere", self._sphere.state()),
        }

    def load(self, state: State) -> None:
        for name, array in self.moved().items():
            fill(array, state, name)
        self._box.load(part(state, "box"))
        self._sphere.load(part(state, "sphere"))

    def moved(self) -> State:
        return {"gates": self.gates, "mean": self._mean, "square": self._square, "steps": self._steps}

    def _project_box(self, x: DoubleArray, budget: float) -> DoubleArray:
        if self._settings.mode == "joint":
            keep = select_per_group(np.clip(x, 0.0, None), self._problem, budget=budget)
            z = np.clip(x, 0.0, 1.0)
            for group in self._problem.groups:
                own = group.places
                count = float(np.count_nonzero(keep[own]))
                z[own] = project_box_budget(x[own], cost=np.ones(group.count), budget=count)
            return z
        above = self.gates > 0.5
        cost = np.maximum(self._problem.cost.marginal(above), 0.0)
        # First-order model of the cost at the kept set k: total(k) + cost.(z - k) <= budget.
        left = budget - self._problem.cost.total(above) + float(cost[above].sum())
        return project_box_budget(x, cost=cost, budget=max(left, 0.0))

    def _project_sphere(self, x: DoubleArray) -> DoubleArray:
        z = x.copy()
        for group in self._problem.groups:
            z[group.places] = project_sphere(x[group.places])
        return z
