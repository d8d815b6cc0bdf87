"""Operators of a domain that nobody has: their rules, what they compute, and networks in which they stand.

The rules are the examples in the docstrings of ``Visit`` and ``Edit``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from onnxadmm.operators import table
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.table import LabelFunction, RewriteFunction, rule
from onnxadmm.rules.visit import LockNodeError, Visit
from tests.samples_text import parse_sample

DOMAIN = "com.example"
Array = NDArray[np.float32]


def scale(visit: Visit) -> None:
    visit.set_result(visit.operand(0).axes)


def product_with_bias(visit: Visit) -> None:
    data, weight, bias = visit.operand(0), visit.operand(1), visit.operand(2)  # [..., K], [K, N], [N]
    if not weight.constant:
        raise LockNodeError("has a weight that is computed while running")
    visit.tie(data.axes[-1], weight.axes[0], "reads features that stay")
    visit.mark_reader(weight, 0)
    columns = visit.tie(weight.axes[1], bias.axes[0])
    visit.set_result([*data.axes[:-1], columns])
    sizes = [visit.rows_per_sample(), *visit.result_shape()[1:], weight.shape[0]]
    visit.add_macs(sizes, [*data.axes[:-1], columns, weight.axes[0]])


def running_maximum(visit: Visit) -> None:
    data = visit.operand(0)
    axis = visit.axis_attribute("axis", -1, data.rank)
    visit.lock(data.axes[axis], "compares positions along it")
    visit.set_result([None if index == axis else labels for index, labels in enumerate(data.axes)])


def block_sum(visit: Visit) -> None:
    data = visit.operand(0)  # [N, blocks * size]
    if data.axes[1] is not None:
        visit.balance(data.axes[1].reshape(-1, visit.integer("size", 1)))  # [blocks, size]
        visit.mark_summed(data, 1)
    visit.set_result([data.axes[0], None])


def rewrite_size(edit: Edit) -> None:
    data = edit.operand(0)
    blocks = data.shape[1] // edit.integer("size", 1)
    edit.set_integer("size", data.size(1) // blocks)


def shuffle_blocks(visit: Visit) -> None:
    data = visit.operand(0)  # [N, blocks * n]
    labels = data.axes[1]
    if labels is not None:
        rows = labels.reshape(visit.integer("blocks", 1), -1)  # [blocks, n]
        visit.tie(np.broadcast_to(rows[:, :1], rows.shape), rows)
        labels = rows.T.reshape(-1)  # [blocks, n] -> [n * blocks]
    visit.set_result([data.axes[0], labels])


def rewrite_blocks(edit: Edit) -> None:
    data = edit.operand(0)
    length = data.shape[1] // edit.integer("blocks", 1)
    edit.set_integer("blocks", data.size(1) // length)


RULES: dict[str, tuple[LabelFunction, RewriteFunction | None]] = {
    "Scale2": (scale, None),
    "MatMulPlus": (product_with_bias, None),
    "RunningMaximum": (running_maximum, None),
    "BlockSum": (block_sum, rewrite_size),
    "ShuffleBlocks": (shuffle_blocks, rewrite_blocks),
}


@contextmanager
def registered(**others: tuple[LabelFunction, RewriteFunction | None]) -> Iterator[None]:
    """The rules are in the table, some of them replaced by others; afterwards it is what it was."""
    before = {(entry.domain, entry.name): entry for entry in table.operators()}
    for operator, (label, rewrite) in (RULES | others).items():
        rule(operator, domain=DOMAIN, rewrite=rewrite, note="made up")(label)
    try:
        yield
    finally:
        table._TABLE.clear()
        table._TABLE.update(before)


class Scale2(OpRun):
    op_domain = DOMAIN

    def _run(self, data: Array) -> tuple[Array]:
        return (2 * data,)


class MatMulPlus(OpRun):
    op_domain = DOMAIN

    def _run(self, data: Array, weight: Array, bias: Array) -> tuple[Array]:
        return (data @ weight + bias,)


class RunningMaximum(OpRun):
    op_domain = DOMAIN

    def _run(self, data: Array, axis: int) -> tuple[Array]:
        return (np.maximum.accumulate(data, axis=axis),)


class BlockSum(OpRun):
    op_domain = DOMAIN

    def _run(self, data: Array, size: int) -> tuple[Array]:
        return (data.reshape(len(data), -1, size).sum(axis=2),)


class ShuffleBlocks(OpRun):
    op_domain = DOMAIN

    def _run(self, data: Array, blocks: int) -> tuple[Array]:
        return (data.reshape(len(data), blocks, -1).swapaxes(1, 2).reshape(data.shape),)


COMPUTED = [Scale2, MatMulPlus, RunningMaximum, BlockSum, ShuffleBlocks]


@dataclass(frozen=True)
class Network:
    """A network in which a made-up operator stands, and the sizes of its groups that may shrink, by name.

    Nobody can infer the shape of a made-up operator's result, so the network states it.
    """

    operator: str
    body: str
    values: str
    groups: dict[str, int]
    shape: str = "N,6"

    def model(self) -> onnx.ModelProto:
        """The network, with weights."""
        return parse_sample(
            f"""<ir_version: 8, opset_import: ["" : 17, "{DOMAIN}" : 1]>
            made_up (float[{self.shape}] x) => (float[{self.shape.rpartition(",")[0]},2] y)
            <{self.values}> {{ {self.body} }}"""
        )


NETWORKS: dict[str, Network] = {
    "element-wise": Network(
        "Scale2",
        "g = Gemm (x, W1, B1) h = com.example.Scale2 (g) y = Gemm (h, W2, B2)",
        "float[N,5] h, float[6,5] W1, float[5] B1, float[5,2] W2, float[2] B2",
        {"W1": 5},
    ),
    "two products": Network(
        "MatMulPlus",
        """g = com.example.MatMulPlus (x, W1, B1) s = Sigmoid (g) h = com.example.MatMulPlus (s, W3, B3)
        y = MatMul (h, W2)""",
        "float[N,5] g, float[N,7] h, float[6,5] W1, float[5] B1, float[5,7] W3, float[7] B3, float[7,2] W2",
        {"W1": 5, "W3": 7},
    ),
    "maximum over tokens": Network(
        "RunningMaximum",
        "g = MatMul (x, W1) h = com.example.RunningMaximum <axis: int = 1> (g) y = MatMul (h, W2)",
        "float[N,3,5] h, float[6,5] W1, float[5,2] W2",
        {"W1": 5},
        shape="N,3,6",
    ),
    "maximum over features": Network(
        "RunningMaximum",
        """g = MatMul (x, W1) h = com.example.RunningMaximum <axis: int = -1> (g) r = MatMul (h, W3) s = Relu (r)
        y = MatMul (s, W2)""",
        "float[N,5] h, float[6,5] W1, float[5,4] W3, float[4,2] W2",
        {"W3": 4},
    ),
    "sums of blocks": Network(
        "BlockSum",
        "g = Gemm (x, W1, B1) s = Sigmoid (g) h = com.example.BlockSum <size: int = 4> (s) y = Gemm (h, W2, B2)",
        "float[N,3] h, float[6,12] W1, float[12] B1, float[3,2] W2, float[2] B2",
        {"W1": 12},
    ),
    "shuffled blocks": Network(
        "ShuffleBlocks",
        "g = Gemm (x, W1, B1) s = Sigmoid (g) h = com.example.ShuffleBlocks <blocks: int = 4> (s) y = Gemm (h, W2, B2)",
        "float[N,12] h, float[6,12] W1, float[12] B1, float[12,2] W2, float[2] B2",
        {"W1": 4},
    ),
}
