"""How much is left in floats, and in which order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from onnxadmm.graph.model import Model
from onnxadmm.int8.choose import leave_in_float
from onnxadmm.int8.static import Quantizer

#: What each operator costs in bytes.
COSTS = {"a": 0.5, "b": 4.0, "c": 0.0, "d": 2.0, "e": 0.25}


@dataclass
class Made:
    """Stands for a quantizer: its models are the names of what is in floats."""

    nodes: Sequence[str] = tuple(COSTS)
    asked: list[frozenset[str]] = field(default_factory=list)

    def quantized(self, floats: Collection[str] = ()) -> frozenset[str]:
        self.asked.append(frozenset(floats))
        return frozenset(floats)


def lost(model: Model) -> float:
    return sum(cost for name, cost in COSTS.items() if name not in cast(Any, model))


@pytest.mark.parametrize(
    ("most", "floats"),
    [(6.75, ()), (3.0, ("b",)), (2.75, ("b",)), (1.0, ("b", "d")), (0.3, ("b", "d", "a")), (0.0, ("b", "d", "a", "e"))],
)
def test_no_more_is_left_than_has_to_be_the_dearest_first(most: float, floats: tuple[str, ...]) -> None:
    made, looks = Made(), []
    found = leave_in_float(
        cast(Quantizer, made),
        lost=lost,
        distance=lost,
        most=most,
        on_look=lambda done, total: looks.append((done, total)),
    )
    assert found.floats == floats
    assert cast(Any, found.model) == set(floats)
    assert found.lost == lost(found.model) <= most
    assert all(done <= total for done, total in looks)


def test_a_model_that_bears_it_is_made_once() -> None:
    made = Made()
    leave_in_float(cast(Quantizer, made), lost=lambda _: 0.0, distance=lost, most=0.3)
    assert made.asked == [frozenset()]


def test_where_nothing_helps_all_of_it_keeps_floats() -> None:
    found = leave_in_float(cast(Quantizer, Made()), lost=lambda _: 1.0, distance=lost, most=0.3)
    assert set(found.floats) == set(COSTS)
