"""Matrix products."""

from onnxadmm.rules.elementwise import broadcast
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Visit


def contract(visit: Visit, first: Operand, first_axis: int, second: Operand, second_axis: int) -> Axis:
    """Tie the contracted axes; a constant operand is the reader, else the product. Returns the axis when it may shrink.

    ``first`` is the node's first operand, ``second`` any other.
    """
    left, right = first.axes[first_axis], second.axes[second_axis]
    if first.constant and second.constant:
        visit.lock(left, "contracts two constants")
        visit.lock(right, "contracts two constants")
        return None
    if not first.constant and not second.constant:
        tied = visit.tie(left, right, "contracts it with positions that stay")
        visit.read_activation(0, first_axis)
        return tied
    weight, axis = (first, first_axis) if first.constant else (second, second_axis)
    tied = visit.tie(left, right, "reads features that stay")
    reading = weight.axes[axis]
    if reading is not None:
        visit.read(weight, axis, reading)
    return tied


@rule(
    "FusedGemm", domain="com.microsoft", shaped_like=("Gemm", (0, 1, 2)), note="as Gemm, with an activation behind it"
)
@rule(
    "Gemm",
    weights=(0, 1),
    vectors=(2,),
    gradient="engine",
    note="reads rows or columns of its weight, writes the others; ties what two activations contract",
)
def general_matrix_product(visit: Visit) -> None:
    """A ``[M, K]`` or transposed, B ``[K, N]`` or transposed, C broadcast to ``[M, N]``."""
    first, second = visit.operand(0), visit.operand(1)
    first_inner = 0 if visit.integer("transA", 0) else 1
    second_inner = 1 if visit.integer("transB", 0) else 0
    inner = contract(visit, first, first_inner, second, second_inner)
    result: list[Axis] = [first.axes[1 - first_inner], second.axes[1 - second_inner]]
    shape = visit.result_shape()
    if visit.has(2):
        product_operand = Operand("", shape, tuple(result), constant=False)
        result = broadcast(visit, [product_operand, visit.operand(2)], shape)
    visit.give(result)
    samples = visit.samples(shape, visit.node.outputs[0].name)
    visit.multiply_accumulates([samples, shape[1], first.shape[first_inner]], [*result, inner])


@rule(
    "MatMul",
    weights=(0, 1),
    gradient="engine",
    note="reads rows of its constant operand, writes columns; ties what two activations contract",
)
def matrix_product(visit: Visit) -> None:
    """A ``[..., M, K]`` times B ``[..., K, N]``; an operand of rank one has no outer axis."""
    first, second = visit.operand(0), visit.operand(1)
    first_inner, second_inner = first.rank - 1, max(second.rank - 2, 0)
    inner = contract(visit, first, first_inner, second, second_inner)
    shape = visit.result_shape()
    first_outer = [first.axes[-2]] if first.rank > 1 else []
    second_outer = [second.axes[-1]] if second.rank > 1 else []
    batch_rank = len(shape) - len(first_outer) - len(second_outer)
    stacks = [
        Operand(operand.name, operand.shape[:-2], operand.axes[:-2], operand.constant)
        for operand in (first, second)
        if operand.rank > 2
    ]
    batch = broadcast(visit, stacks, shape[:batch_rank])
    if not first.constant and not second.constant:
        for axis in batch:
            visit.head(axis)
    result = [*batch, *first_outer, *second_outer]
    visit.give(result)
    samples = visit.samples(shape, visit.node.outputs[0].name)
    visit.multiply_accumulates([samples, *shape[1:], first.shape[first_inner]], [*(result or [None]), inner])
