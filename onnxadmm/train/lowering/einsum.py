"""Lowering of Einsum: two operands at a time, by Transpose, Reshape, MatMul and ReduceSum."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx

from onnxadmm.operators.equation import Equation, parse_equation
from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape, refusal
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace


@dataclass(frozen=True)
class _Term:
    """A value and what its axes are called."""

    value: str
    axes: tuple[str, ...]


@lowers("Einsum")
def lower_einsum(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Contract the operands from left to right, summing an axis as soon as nothing needs it any more."""
    shapes = [need_shape(space, node, name) for name in node.input]
    text = attribute(node, "equation", "")
    equation = parse_equation(text, [len(shape) for shape in shapes])
    sizes: dict[str, int] = {}
    if equation is None or equation.takes_diagonals or not _sized(equation, shapes, sizes):
        raise refusal(
            node,
            expected="axes of one length each, none twice in an operand",
            found=text,
            way_out="write it with MatMul and Mul",
        )
    operands, result = equation
    write = Writer(space, node)
    terms = [_Term(name, axes) for name, axes in zip(node.input, operands, strict=True)]
    current = terms[0]
    for position, other in enumerate(terms[1:], start=1):
        later = {axis for term in terms[position + 1 :] for axis in term.axes} | set(result)
        current = _contract(write, current, other, sizes=sizes, later=later)
    current = _summed(write, current, keep=set(result))
    order = [current.axes.index(axis) for axis in result]
    return write.finish(write.add("Transpose", current.value, perm=order))


def _sized(equation: Equation, shapes: Sequence[tuple[int, ...]], sizes: dict[str, int]) -> bool:
    """Note the length of each axis by its name; False where operands differ, one of them being broadcast."""
    return all(
        sizes.setdefault(axis, size) == size
        for axes, shape in zip(equation.operands, shapes, strict=True)
        for axis, size in zip(axes, shape, strict=True)
    )


def _summed(write: Writer, term: _Term, *, keep: set[str]) -> _Term:
    gone = [index for index, axis in enumerate(term.axes) if axis not in keep]
    if not gone:
        return term
    return _Term(write.sum(term.value, gone, keep=False), tuple(axis for axis in term.axes if axis in keep))


def _contract(write: Writer, left: _Term, right: _Term, *, sizes: dict[str, int], later: set[str]) -> _Term:
    """One MatMul: shared axes that are needed later are its batch, the other shared ones are summed over."""
    left = _summed(write, left, keep=later | set(right.axes))
    right = _summed(write, right, keep=later | set(left.axes))
    batch = [axis for axis in left.axes if axis in right.axes and axis in later]
    inner = [axis for axis in left.axes if axis in right.axes and axis not in later]
    rows = [axis for axis in left.axes if axis not in right.axes]
    columns = [axis for axis in right.axes if axis not in left.axes]

    def matrix(term: _Term, first: list[str], second: list[str]) -> str:
        order = [term.axes.index(axis) for axis in (*batch, *first, *second)]
        moved = term.value if order == sorted(order) else write.add("Transpose", term.value, perm=order)
        lengths = [sizes[axis] for axis in batch]
        return write.reshape(moved, (*lengths, prod(sizes[a] for a in first), prod(sizes[a] for a in second)))

    product = write.add("MatMul", matrix(left, rows, inner), matrix(right, inner, columns))
    axes = (*batch, *rows, *columns)
    return _Term(write.reshape(product, [sizes[axis] for axis in axes]), axes)
