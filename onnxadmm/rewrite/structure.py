"""Whether a model whose numbers differ was retrained, and is otherwise what a plan leaves.

Retrained weights differ from what the cut alone leaves, so outputs prove nothing. What can be proven is the structure:
the same nodes with the same attributes, weights of the same names, types and shapes, the connections that the plan
prunes at zero, and the file's own record of what was removed.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import FLOATS, constant, constants_by_name
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.record import read_records

Array = NDArray[Any]
Signature = tuple[Any, ...]

#: So many elements of a weight are looked up among the original's.
_SAMPLED: Final = 2**16


@dataclass(frozen=True)
class Retrained:
    """What was found of a model that has the structure that a plan leaves, with weights of its own.

    Attributes:
        weights: its weights with two axes or more.
        changed: how many of them are not what the cut alone leaves.
        nodes: of the main graph.
        recorded: whether its metadata say what was removed; they agree with the plan where they do.
    """

    weights: int
    changed: int
    nodes: int
    recorded: bool


def misfit(expected: Model, found: Model, *, zeros: Collection[str] = ()) -> str | None:
    """Say what of a model's structure is not as expected; None where all of it fits.

    Args:
        expected: what the cut alone leaves.
        found: the model in question.
        zeros: weights of which the plan prunes connections: what is zero in them stays zero.
    """
    wanted, there = list(_signatures(expected.ir.graph)), list(_signatures(found.ir.graph))
    if len(wanted) != len(there):
        return f"{len(wanted)} nodes should be and {len(there)} are there"
    for one, other in zip(wanted, there, strict=True):
        if one != other:
            return (
                f"node {one[0]} ({one[2]}) should be and {other[0]} ({other[2]}) is there, or it has other attributes"
            )
    ours, theirs = constants_by_name(expected), constants_by_name(found)
    if ours.keys() != theirs.keys():
        odd = min(ours.keys() ^ theirs.keys())
        return f"weight {odd} is {'missing' if odd in ours else 'not of the plan'}"
    for name, value in ours.items():
        left, right = constant(value), constant(theirs[name])
        if left is None or right is None:
            continue
        if left.shape != right.shape or left.dtype != right.dtype:
            return f"weight {name} should be {left.dtype}{list(left.shape)} and is {right.dtype}{list(right.shape)}"
        if left.dtype.kind not in "fV" and not np.array_equal(left, right):
            return f"constant {name}, of whole numbers or text, has other values"
        if name in zeros and np.any(right[left == 0]):
            return f"weight {name} has values where the plan prunes connections"
    records, own = read_records(found), read_records(expected)
    if records and records[-1].get("units") != own[-1].get("units"):
        return f"its metadata record other removals, {records[-1].get('units')}"
    return None


def retrained(expected: Model, original: Model, found: Model, *, fitted: Collection[str] = ()) -> Retrained | None:
    """Return how much of a model of the right structure was retrained; None where its weights are no trained ones.

    Training moves most elements of most weights, to values that the original does not hold. A weight or two that
    differ, or weights that are those of other units, are a fault; unless the plan says that they were fitted.

    Args:
        expected: what the cut alone leaves.
        original: what was cut.
        found: the model in question, see ``misfit``.
        fitted: weights that were fitted anew, by the plan.
    """
    weights = {name: array for name, array in _floats(expected).items() if array.ndim > 1}
    theirs, whole = _floats(found), _floats(original)
    moved = [name for name, array in weights.items() if _is_moved(array, theirs[name])]
    if not moved or (2 * len(moved) < len(weights) and not set(moved) <= set(fitted)):
        return None
    if any(_is_selection(theirs[name], weights[name], whole.get(name)) for name in moved):
        return None
    changed = sum(not np.array_equal(array, theirs[name]) for name, array in weights.items())
    return Retrained(len(weights), changed, len(found.ir.graph), bool(read_records(found)))


def _floats(model: Model) -> Mapping[str, Array]:
    arrays = {
        name: constant(value)
        for name, value in constants_by_name(model).items()
        if value.const_value is None or value.const_value.dtype in FLOATS
    }
    return {name: array for name, array in arrays.items() if array is not None and array.dtype.kind in "fV"}


def _is_moved(one: Array, other: Array) -> bool:
    """Whether half of the elements that are not zero on both sides differ."""
    counted = (one != 0) | (other != 0)
    return bool(counted.any()) and 2 * int((one != other).sum()) >= int(counted.sum())


def _is_selection(found: Array, expected: Array, original: Array | None) -> bool:
    """Whether what differs are values of the original at other places."""
    if original is None:
        return False
    differing = found[found != expected].reshape(-1)[:_SAMPLED].astype(np.float64)
    return 2 * int(np.isin(differing, original.astype(np.float64)).sum()) > len(differing)


def _signatures(graph: onnx_ir.Graph) -> Iterator[Signature]:
    """Of every node but Constant: what it is, what it reads and writes, and its attributes."""
    for node in graph:
        if node.op_type != "Constant":
            names = [None if value is None else value.name for value in node.inputs]
            attributes = tuple(sorted((name, _plain(attribute)) for name, attribute in node.attributes.items()))
            results = [value.name for value in node.outputs]
            yield (
                node.op_type,
                node.domain,
                node.name or next(iter(results), ""),
                tuple(names),
                tuple(results),
                attributes,
            )


def _plain(attribute: onnx_ir.Attr) -> str:
    if attribute.is_ref():
        return f"ref {attribute.ref_attr_name}"
    if attribute.type is onnx_ir.AttributeType.GRAPH:
        return str([each[0] for each in _signatures(attribute.as_graph())])
    if attribute.type is onnx_ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype} {tensor.shape}"
    return str(attribute.value)
