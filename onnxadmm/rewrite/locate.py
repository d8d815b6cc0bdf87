"""The first tensor, in the order of computation, that differs between the masked original and the shrunk model."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.runtime import open_session
from onnxadmm.rewrite.comparing import compare
from onnxadmm.rewrite.shrink import cut

Array = NDArray[Any]
Kept = Callable[[str, tuple[int, ...]], tuple[NDArray[np.int64] | None, ...] | None]


@dataclass(frozen=True)
class Difference:
    """The first tensor, in the order of computation, that differs between two models.

    Attributes:
        tensor: its name.
        operator: type of the node that computes it.
        node: name of that node; its tensor's name where the node has none.
        found: what differs, with the numbers.
    """

    tensor: str
    operator: str
    node: str
    found: str

    def __str__(self) -> str:
        return f"tensor {self.tensor}, computed by {self.operator} ({self.node}), is the first to differ: {self.found}"


def locate(
    masked: Model,
    shrunk: Model,
    inputs: Sequence[Mapping[str, Array]],
    kept: Kept,
    *,
    threshold_db: float,
    threads: int = 1,
) -> Difference | None:
    """Find the first tensor, in the order of computation, that differs at its surviving positions.

    Every result of every node is made an output on both sides. Integer results are passed over, since a shape that
    is computed while running differs by right, and so is whatever is computed from such shapes alone.

    Args:
        masked: the original with the readers of removed units set to zero.
        shrunk: the same network without those units.
        inputs: batches to run.
        kept: for the name and the shape of a masked tensor the surviving positions on every axis, ascending, None for
            a whole axis; None where the whole tensor stays. Where it raises LookupError the tensor is passed over.
        threshold_db: smallest ratio that counts as equal.
        threads: threads of one operator.

    Returns:
        The first difference, or None where all tensors that both models compute agree.

    Raises:
        ModelFileError: the masked original does not run.
    """
    writers = dict(_results_of_data(masked.ir.graph))
    present = {value.name for node in shrunk.ir.graph for value in node.outputs}
    names = [name for name in writers if name in present]
    reference = open_session(_exposed(masked, names), threads=threads, as_written=True)
    for feed in inputs:
        expected = reference.run(feed, names)
        for name, found in _results(shrunk, feed, names, threads=threads):
            if np.asarray(expected[name]).dtype.kind not in "fcV":
                continue
            differs = found if isinstance(found, str) else _complaint(name, expected[name], found, kept, threshold_db)
            if differs is not None:
                node = writers[name]
                return Difference(tensor=name, operator=node.op_type, node=node.name or name, found=differs)
    return None


def _results(
    shrunk: Model, feed: Mapping[str, Array], names: Sequence[str], *, threads: int
) -> Iterator[tuple[str, Any]]:
    """Yield every named result in order; text in place of the first that cannot be computed."""
    found: dict[str, Any] = {}
    with contextlib.suppress(ModelFileError):
        found = open_session(_exposed(shrunk, names), threads=threads, as_written=True).run(feed, names)
    yield from found.items()
    # Where the whole does not run, take the graph in steps, each up to one result.
    for name in names if not found else ():
        try:
            part = open_session(_up_to(shrunk, name), threads=threads, as_written=True)
            yield name, part.run(feed, [name])[name]
        except ModelFileError as error:
            yield name, f"it cannot be computed, {error.found}"


def _complaint(name: str, expected: Any, found: Any, kept: Kept, limit: float) -> str | None:
    survivors = np.asarray(expected)
    try:
        positions = kept(name, survivors.shape)
    except LookupError:
        return None
    if positions is not None:
        survivors = cut(survivors, positions)
    return compare(survivors, found).complaint(limit=limit, exact_may_differ=0.0)


def _exposed(model: Model, names: Sequence[str]) -> Model:
    """A copy whose outputs include the named results."""
    copy = clone(model)
    graph = copy.ir.graph
    wanted = set(names) - {value.name for value in graph.outputs}
    graph.outputs.extend(value for node in graph for value in node.outputs if value.name in wanted)
    return copy


def _up_to(model: Model, name: str) -> Model:
    """A copy that computes one result and holds no node that it does not need."""
    copy = clone(model)
    graph = copy.ir.graph
    result = next(value for node in graph for value in node.outputs if value.name == name)
    graph.outputs[:] = [result]
    for node in reversed(graph):
        if not any(value.uses() or value is result for value in node.outputs):
            graph.remove(node, safe=True)
    return copy


def _results_of_data(graph: onnx_ir.Graph) -> Iterator[tuple[str, onnx_ir.Node]]:
    """Name and writer of every result that is not a constant or made from shapes alone, in the order of computation."""
    from_shapes: set[str] = set()
    constants = set(graph.initializers)
    for node in graph:
        sources = {value.name for value in node.inputs if value is not None}
        shapes_only = node.op_type in ("Shape", "Size") or (
            bool(sources & from_shapes) and sources <= from_shapes | constants
        )
        for value in node.outputs:
            if not value.name:
                continue
            if shapes_only:
                from_shapes.add(value.name)
            elif node.op_type == "Constant":
                constants.add(value.name)
            else:
                yield value.name, node
