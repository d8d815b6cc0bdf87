"""How far other constants take a network from the original, looked at from the first node that reads one of them on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnxadmm.calibrate.frontier import Feed, Frontier, read_by
from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.model import Model

Array = NDArray[Any]
Constants = Mapping[str, Array]
#: Outputs by name; sequences and maps where a model puts such out.
Results = Mapping[str, Any]
#: For each of several sets of constants how far the network is off with them; all others are those of the original.
Distance = Callable[[Sequence[Constants]], Sequence[float]]


@dataclass(frozen=True)
class Goal:
    """What a network is held against.

    Attributes:
        model: the original, gates open; its outputs, results of its nodes, are compared.
        batches: what it is run on.
        loss: how far outputs are from the original's, given both for each batch in turn.
    """

    model: Model
    batches: Sequence[Feed]
    loss: Callable[[Sequence[Results], Sequence[Results]], float]


class Outlook:
    """A ``Distance`` by plain sessions.

    What the original computes up to the first node that reads a constant in question is kept, and serves for all sets
    of constants, and where the next call looks further behind. So it pays to call in the order of the graph.

    Args:
        threads: of one operator.
        room: most bytes of values that are kept.
    """

    def __init__(self, goal: Goal, *, threads: int, room: int) -> None:
        self._goal = goal
        self._threads = threads
        self._room = room
        graph = goal.model.ir.graph
        self._made = {value.name or "": index for index, node in enumerate(graph) for value in node.outputs}
        self._outputs = [value.name or "" for value in graph.outputs]
        start = Frontier(goal.batches, threads=threads, room=0)
        self._wanted = list(start.advance(goal.model, self._outputs, len(graph)))
        self._frontier, self._place = self._start(), 0

    def __call__(self, changes: Sequence[Constants]) -> list[float]:
        """Return how far the network is off with each set of constants; those that it does not have count for nothing.

        Raises:
            ModelFileError: onnxruntime does not load or run the network.
        """
        model = self._goal.model
        values = constants_by_name(model)
        names = {name for each in changes for name in each if name in values}
        first = self._first_reader(names)
        behind = [name for name in self._outputs if self._made[name] >= first]
        if not behind:
            return [self._goal.loss(self._wanted, self._wanted) for _ in changes]
        if first < self._place:
            self._frontier, self._place = self._start(), 0
        if first > self._place:
            for _ in self._frontier.advance(model, (), first):
                pass  # what is left to read is kept
            self._place = first
        usual = {name: constant(values[name]) for name in names}
        with self._frontier.open_rest(model, behind, names) as session:

            def results(change: Constants) -> Iterator[Results]:
                for feed, wanted in zip(self._frontier.feeds, self._wanted, strict=True):
                    given: dict[str, Any] = {**feed, **usual, **change}
                    yield {**wanted, **session.run({name: given[name] for name in session.inputs})}

            return [self._goal.loss(list(results(change)), self._wanted) for change in changes]

    def _start(self) -> Frontier:
        return Frontier(self._goal.batches, threads=self._threads, room=self._room)

    def _first_reader(self, names: set[str]) -> int:
        """The place of the first node that reads one of some constants; the number of nodes where none does."""
        nodes = list(self._goal.model.ir.graph)
        places = (place for place, node in enumerate(nodes) if any(value.name in names for value in read_by(node)))
        return next(places, len(nodes))
