"""What the loss is taken of, in the one layout that losses and measures know: samples on axis 0, classes on axis 1.

Comes in: a model whose logits lie in any order, or that has several outputs. Goes out: a copy with one output.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.train.prepare.nodes import as_proto
from onnxadmm.train.prepare.signature import layouts_of
from onnxadmm.train.prepare.tail import cut_tail, logits_of

_LOGITS = "onnxadmm.logits"
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


@dataclass(frozen=True)
class Head:
    """Which outputs the loss is taken of, and the order of their axes.

    Attributes:
        orders: for each output the axes of its logits in the order that training reads them, empty as they stand.
        joined: whether all elements of several outputs are laid side by side, ``[N, elements]``.
        keep_sigmoid: as for ``cut_tail``.
        narrow: outputs that are joined and are floats of another type than float32.
    """

    orders: Mapping[str, tuple[int, ...]]
    joined: bool = False
    keep_sigmoid: bool = False
    narrow: frozenset[str] = frozenset()

    def shown(self, model: Model) -> Model:
        """The model as it trains: the logits as its only output; the model itself where nothing is to be changed.

        Raises:
            NotTrainableError, OptionError: as ``cut_tail`` does.
        """
        as_it_stands = not self.joined and not any(self.orders.values())
        if as_it_stands and len(model.ir.graph.outputs) == 1:
            return model
        parts: list[str] = []
        result = onnx.ModelProto()
        for output, order in self.orders.items():
            copy, tail = cut_tail(as_proto(model), output=output, keep_sigmoid=self.keep_sigmoid)
            name = tail.logits
            known = {node.output[0] for node in result.graph.node}
            if not parts:
                result = copy
            else:
                result.graph.node.extend(node for node in copy.graph.node if node.output[0] not in known)
            if order:
                name = _add(result.graph, "Transpose", name, f"{name}/samples first", perm=order)
            if output in self.narrow:
                name = _add(result.graph, "Cast", name, f"{name}/float32", to=TensorProto.FLOAT)
            if self.joined:
                name = _add(result.graph, "Flatten", name, f"{name}/flat", axis=1)
            parts.append(name)
        if self.joined:
            result.graph.node.append(helper.make_node("Concat", parts, [_LOGITS], name=_LOGITS, axis=1))
            parts = [_LOGITS]
        if any(self.orders.values()) or self.joined:
            del result.graph.output[:]
            rank = 2 if self.joined else max(map(len, self.orders.values()))
            result.graph.output.append(helper.make_tensor_value_info(parts[0], TensorProto.FLOAT, [None] * rank))
        return from_proto(result)


def all_outputs(model: Model, *, keep_sigmoid: bool, trains: bool = True) -> tuple[Head, tuple[str, ...]]:
    """The head that joins the logits of all float outputs that have a batch, and the outputs that are left out.

    Args:
        keep_sigmoid: as for ``cut_tail``.
        trains: whether they have to be float32, as the engine wants them.

    Raises:
        NotTrainableError: no output is left.
    """
    proto = as_proto(model)
    starts = logits_of(proto, keep_sigmoid=keep_sigmoid)
    layouts = layouts_of(proto, list(starts))
    kinds = _kinds(proto)
    orders: dict[str, tuple[int, ...]] = {}
    left_out: list[str] = []
    narrow: set[str] = set()
    usable = {TensorProto.FLOAT} if trains else _FLOATS
    for start, walks in starts.items():
        output = min(walks, key=lambda name: len(walks[name]))
        shape, batch_axis = layouts[start]
        kind = kinds.get(start, TensorProto.FLOAT)
        if kind not in usable or batch_axis < 0:
            left_out += walks
            continue
        if kind != TensorProto.FLOAT:
            narrow.add(output)
        orders[output] = order_of(len(shape) if shape is not None else 0, batch_axis, None)
    if not orders:
        raise NotTrainableError(
            "loss",
            expected=f"an output of {'float32' if trains else 'float'} numbers with a batch",
            found=", ".join(left_out),
            way_out="choose an output with --output NAME",
        )
    joined = len(orders) > 1
    head = Head(orders, joined=joined, keep_sigmoid=keep_sigmoid, narrow=frozenset(narrow if joined else ()))
    return head, tuple(left_out)


def order_of(rank: int, batch_axis: int, class_axis: int | None) -> tuple[int, ...]:
    """The axes of logits with samples in front and classes behind them, empty where they stand so already."""
    first = [batch_axis] if class_axis is None else [batch_axis, class_axis]
    order = (*first, *(axis for axis in range(rank) if axis not in first))
    return () if order == tuple(range(len(order))) else order


def _add(graph: onnx.GraphProto, operator: str, source: str, output: str, **attributes: Any) -> str:
    graph.node.append(helper.make_node(operator, [source], [output], name=output, **attributes))
    return output


def _kinds(model: onnx.ModelProto) -> Mapping[str, int]:
    """Element types of the tensors, where they can be inferred."""
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values if value.type.HasField("tensor_type")}
