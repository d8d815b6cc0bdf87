"""Running a network in stretches: what a stretch needs of those before it is kept, so that no node runs twice."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import constants_by_name
from onnxadmm.graph.model import Model
from onnxadmm.graph.part import between
from onnxadmm.graph.runtime import Session, open_session

Array = NDArray[Any]
Feed = Mapping[str, Array]


class Frontier:
    """How far a network has been run on some batches, and the values there that later nodes read.

    Its weights may change between two stretches where nothing has read them yet.

    Args:
        batches: inputs of the network, by name.
        threads: of one operator.
        room: most bytes of values that are kept; beyond them every stretch starts from the inputs.
    """

    def __init__(self, batches: Sequence[Feed], *, threads: int, room: int) -> None:
        self._batches = batches
        self._threads = threads
        self._room = room
        self._live: list[Feed] = list(batches)
        self._at_start = True

    def advance(self, model: Model, names: Collection[str], index: int) -> Iterator[dict[str, Array]]:
        """Run up to a node and yield the named values of each batch in turn; all of them have to be taken.

        Args:
            model: the network as it is now.
            names: values that nodes before ``index``, or the inputs, give.
            index: of the first node that is not run.
        """
        kept = _read_from(model, index) if self._room else set()
        given = self._live[0]
        fresh = {name for name in {*names, *kept} if name not in given}
        fed = {} if self._at_start else _types(given)
        part = between(model, fed, fresh) if fresh else None
        session = None if part is None else open_session(part, threads=self._threads)
        held, whole = 0, self._room > 0
        for number, before in enumerate(self._live):
            results: dict[str, Any] = {}
            if session is not None:
                results = session.run({name: before[name] for name in session.inputs})
            after = {**before, **results}
            yield {name: after[name] for name in names}
            left = {name: after[name] for name in kept}
            whole = whole and all(isinstance(value, np.ndarray) for value in left.values())
            held += sum(value.nbytes for value in left.values()) if whole else 0
            whole = whole and held <= self._room
            self._live[number] = left if whole else {}
        if session is not None:
            session.close()
        self._at_start = not whole
        if not whole:
            self._live = list(self._batches)

    @property
    def feeds(self) -> Sequence[Feed]:
        """What a session of ``open_rest`` may be given, for each batch."""
        return self._live

    def open_rest(self, model: Model, names: Collection[str], constants: Collection[str]) -> Session:
        """Open what is left of a network from where it has been run to; the caller closes it.

        Args:
            model: the network as it is now.
            names: values that nodes which have not been run give.
            constants: names of those that every run is given anew.
        """
        known = constants_by_name(model)
        fed = {} if self._at_start else _types(self._live[0])
        kinds = {name: known[name].dtype or onnx_ir.DataType.FLOAT for name in constants}
        return open_session(between(model, {**fed, **kinds}, names), threads=self._threads)


def _types(feed: Feed) -> dict[str, onnx_ir.DataType]:
    return {name: onnx_ir.DataType.from_numpy(array.dtype) for name, array in feed.items()}


def _read_from(model: Model, index: int) -> set[str]:
    """Names of the values that nodes from ``index`` on read and that are not computed there, inputs included.

    Constants are left out: they stand wherever they are read.
    """
    graph = model.ir.graph
    nodes = list(graph)
    known = {value for node in nodes[:index] if node.op_type != "Constant" for value in node.outputs}
    known |= {value for value in graph.inputs if value.name not in graph.initializers}
    read = {value for node in nodes[index:] for value in read_by(node)}
    return {value.name for value in known & read if value.name}


def read_by(node: onnx_ir.Node) -> Iterator[onnx_ir.Value]:
    """Yield what a node reads, in its bodies as well."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        bodies = [attribute.as_graph()] if attribute.type is onnx_ir.AttributeType.GRAPH else []
        bodies += attribute.as_graphs() if attribute.type is onnx_ir.AttributeType.GRAPHS else []
        for body in bodies:
            yield from body.outputs
            for inner in body:
                yield from read_by(inner)
