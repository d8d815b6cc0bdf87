"""Gradients of matrix products."""

from collections.abc import Sequence
from math import prod

import onnx

from onnxadmm.train.gradients.writer import Backward, Made, differentiates
from onnxadmm.train.prepare.nodes import attribute


@differentiates("MatMul")
def matmul(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dA = dY B^T, dB = A^T dY; of a stack times one matrix, as one product of all rows"""
    left, right = node.input
    one, other = write.known(left), write.known(right)
    if len(other) == 2:
        return _rows(write, node, upstream[0], one, other)
    whole = write.known(node.output[0])
    first = second = None
    if write.wants(0):
        product = write.add("MatMul", upstream[0], _turned(write, right, len(other)))
        first = write.summed_to(product, (*whole[:-1], one[-1]), one)
    if write.wants(1):
        product = write.add("MatMul", _turned(write, left, len(one)), upstream[0])
        second = write.summed_to(product, (*whole[:-2], one[-1], whole[-1]), other)
    return [first, second]


def _rows(
    write: Backward, node: onnx.NodeProto, dy: str, left: tuple[int, ...], right: tuple[int, ...]
) -> list[str | None]:
    """[..., M, K] times [K, N]"""
    rows = prod(left[:-1])
    flat = dy if len(left) == 2 else write.reshape(dy, [rows, right[1]])
    first = second = None
    if write.wants(0):
        first = write.add("Gemm", flat, node.input[1], transB=1)
        first = first if len(left) == 2 else write.reshape(first, left)
    if write.wants(1):
        whole = node.input[0] if len(left) == 2 else write.reshape(node.input[0], [rows, left[-1]])
        second = write.add("Gemm", whole, flat, transA=1)
    return [first, second]


def _turned(write: Backward, value: str, rank: int) -> str:
    """A stack of matrices, each transposed; kernels read them so without moving them."""
    return write.add("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


@differentiates("Gemm")
def gemm(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """Y = alpha A B + beta C, each of A and B as it stands or transposed"""
    a, b = node.input[:2]
    turned_a, turned_b = bool(attribute(node, "transA", 0)), bool(attribute(node, "transB", 0))
    alpha, dy = float(attribute(node, "alpha", 1.0)), upstream[0]
    first = second = third = None
    if write.wants(0):
        first = (
            write.add("Gemm", b, dy, transA=int(turned_b), transB=1, alpha=alpha)
            if turned_a
            else write.add("Gemm", dy, b, transB=int(not turned_b), alpha=alpha)
        )
    if write.wants(1):
        second = (
            write.add("Gemm", dy, a, transA=1, transB=int(turned_a), alpha=alpha)
            if turned_b
            else write.add("Gemm", a, dy, transA=int(not turned_a), alpha=alpha)
        )
    if write.wants(2):
        third = write.scale(write.matched(dy, node.output[0], node.input[2]), float(attribute(node, "beta", 1.0)))
    return [first, second, third][: len(node.input)]
