"""Lowering of Einsum: two operands at a time, by Transpose, Reshape, MatMul and ReduceSum."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx

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
    operands, result = _parse(node, shapes)
    sizes: dict[str, int] = {}
    for axes, shape in zip(operands, shapes, strict=True):
        for axis, size in zip(axes, shape, strict=True):
            if len(set(axes)) != len(axes) or sizes.setdefault(axis, size) != size:
                raise refusal(
                    node,
                    expected="axes of one length each, none twice in an operand",
                    found=attribute(node, "equation", ""),
                    way_out="write it with MatMul and Mul",
                )
    write = Writer(space, node)
    terms = [_Term(name, axes) for name, axes in zip(node.input, operands, strict=True)]
    current = terms[0]
    for position, other in enumerate(terms[1:], start=1):
        later = {axis for term in terms[position + 1 :] for axis in term.axes} | set(result)
        current = _contract(write, current, other, sizes=sizes, later=later)
    current = _summed(write, current, keep=set(result))
    order = [current.axes.index(axis) for axis in result]
    return write.finish(write.add("Transpose", current.value, perm=order))


def _parse(node: onnx.NodeProto, shapes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Names of the axes of each operand and of the result; what an ellipsis stands for gets names of numbers."""
    left, arrow, right = attribute(node, "equation", "").replace(" ", "").partition("->")
    texts = left.split(",")
    widths = [len(shape) - len(text.replace("...", "")) for text, shape in zip(texts, shapes, strict=True)]
    width = max((w for w, text in zip(widths, texts, strict=True) if "..." in text), default=0)

    def axes(text: str, count: int) -> tuple[str, ...]:
        before, dots, after = text.partition("...")
        numbers = [str(number) for number in range(width - count, width)] if dots else []
        return (*before, *numbers, *after)

    operands = [axes(text, count) for text, count in zip(texts, widths, strict=True)]
    if arrow:
        return operands, axes(right, width)
    letters = sorted(axis for axis in left if axis.isalpha() and left.count(axis) == 1)
    return operands, (*(str(number) for number in range(width)), *letters)


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
