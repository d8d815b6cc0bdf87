"""Matrix products."""

from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Visit


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
    inner = visit.contract(first, first_inner, second, second_inner)
    result: list[Axis] = [first.axes[1 - first_inner], second.axes[1 - second_inner]]
    shape = visit.result_shape()
    if visit.has_operand(2):
        result = visit.tie_broadcast([Operand.stand_in(shape, result), visit.operand(2)], shape)
    visit.set_result(result)
    samples = visit.rows_per_sample()
    visit.add_macs([samples, shape[1], first.shape[first_inner]], [*result, inner])


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
    inner = visit.contract(first, first_inner, second, second_inner)
    shape = visit.result_shape()
    first_outer = [first.axes[-2]] if first.rank > 1 else []
    second_outer = [second.axes[-1]] if second.rank > 1 else []
    batch_rank = len(shape) - len(first_outer) - len(second_outer)
    stacks = [operand.without_last_axes(2) for operand in (first, second)]
    batch = visit.tie_broadcast(stacks, shape[:batch_rank])
    if not first.constant and not second.constant:
        for axis in batch:
            visit.mark_head(axis)
    result = [*batch, *first_outer, *second_outer]
    visit.set_result(result)
    samples = visit.rows_per_sample()
    visit.add_macs([samples, *shape[1:], first.shape[first_inner]], [*(result or [None]), inner])
