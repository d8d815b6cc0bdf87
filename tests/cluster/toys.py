"""A member that solves its part of a convex problem: what Ray actors are tried with, without a network."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxadmm.cluster.consensus import Copy
from onnxadmm.cluster.rounds import Asked
from onnxadmm.errors import DataError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratics:
    """All parts ``f_i(w) = w A_i w / 2 - b_i w``; who asks says which one."""

    a: list[NDArray[np.float64]]
    b: list[Vector]
    pruning_rho: float = 0.3
    seconds: float = 0.0
    broken: str = ""

    def open(self) -> "Solver":
        if self.broken == "open":
            raise DataError("--data", expected="a file", found="none", way_out="copy it")
        return Solver(self)


@dataclass(frozen=True)
class Round:
    asked: Asked
    mean: Vector
    target: Vector
    penalty: float


class Solver:
    def __init__(self, parts: Quadratics) -> None:
        self._parts = parts

    def begin(self, task: str) -> None:
        self._copy = Copy(len(self._parts.b[0]), np.float64)

    def take(self, order: Round) -> Vector:
        parts, copy, machine = self._parts, self._copy, order.asked.machine
        if parts.broken == "take":
            raise DataError("pictures", expected="few that are damaged", found="many", way_out="repair them")
        if parts.broken == "unforeseen":
            raise ZeroDivisionError("by nothing")
        time.sleep(parts.seconds)
        if order.asked.fresh:
            copy.forget()
        copy.begin(order.mean, order.penalty)
        hessian = parts.a[machine] + (parts.pruning_rho + order.penalty) * np.eye(len(order.mean))
        towards = parts.b[machine] + parts.pruning_rho * order.target + order.penalty * (copy.start - copy.dual)
        point: Vector = np.linalg.solve(hessian, towards)
        copy.end(point)
        return point

    def end(self) -> None: ...


#: What members of ``Noted`` have done in this process, in order.
_said: list[str] = []


@dataclass(frozen=True)
class Noted:
    """Opens what answers every order with all that has happened in its process."""

    name: str
    data: Vector

    def open(self) -> "Notes":
        _said.append(f"open {self.name}")
        return Notes(self.name)


class Notes:
    def __init__(self, name: str) -> None:
        self._name = name

    def begin(self, task: str) -> None:
        _said.append(f"begin {task}")

    def take(self, order: str) -> list[str]:
        return [*_said, order]

    def end(self) -> None:
        _said.append(f"end {self._name}")
