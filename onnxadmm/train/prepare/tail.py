"""Cutting what stands after the logits off the training copy: Softmax, ArgMax, Cast, ZipMap and their like.

The loss is taken of logits, and losses that start from probabilities or labels either lose digits or have no
gradient. The graph that ships keeps its tail.
"""

from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from onnxadmm.errors import NotTrainableError, OptionError
from onnxadmm.train.prepare.nodes import label, reads

#: Operators with one data input that may stand between logits and an output.
TAIL_OPERATORS = frozenset(
    {
        ("", "ArgMax"),
        ("", "Cast"),
        ("", "Identity"),
        ("", "LogSoftmax"),
        ("", "Sigmoid"),
        ("", "Softmax"),
        ("", "TopK"),
        ("ai.onnx.ml", "ArrayFeatureExtractor"),
        ("ai.onnx.ml", "LabelEncoder"),
        ("ai.onnx.ml", "Normalizer"),
        ("ai.onnx.ml", "ZipMap"),
    }
)


@dataclass(frozen=True)
class Tail:
    """What was cut.

    Attributes:
        logits: tensor the loss is taken of.
        output: output of the original it leads to.
        operators: operators between the two, first to last, as ``"Softmax (node_7)"``.
        dropped: outputs of the original the training copy does not have.
    """

    logits: str
    output: str
    operators: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        cut = f"{', '.join(self.operators)} cut off for training" if self.operators else "nothing cut off"
        others = f"; outputs left out of training: {', '.join(self.dropped)}" if self.dropped else ""
        return f"loss on {self.logits} (output {self.output}; {cut}{others})"


def cut_tail(
    model: onnx.ModelProto, *, output: str | None = None, keep_sigmoid: bool = False
) -> tuple[onnx.ModelProto, Tail]:
    """Copy a model so that its only output is its logits.

    Outputs whose tails start at the same tensor (a label and its probabilities, as scikit-learn converters write
    them) count as one.

    Args:
        model: left as it is; weights are copied.
        output: name of the output the loss uses, needed when several lead to different logits.
        keep_sigmoid: leave a final Sigmoid in place, for a loss on its value (mse).

    Raises:
        NotTrainableError: several outputs lead to different tensors and none was chosen.
        OptionError: ``output`` is not an output of the model.
    """
    names = [value.name for value in model.graph.output]
    if output is not None and output not in names:
        raise OptionError(
            f"output {output}",
            expected=f"one of {', '.join(names)}",
            found="no such output",
            way_out="name one of them",
        )
    chosen = [output] if output is not None else names
    walks = {name: _walk(model.graph, name, keep_sigmoid=keep_sigmoid) for name in chosen}
    starts = sorted({walk[0] for walk in walks.values()})
    if len(starts) != 1:
        raise NotTrainableError(
            "loss",
            expected="one output to take it of",
            found=f"{len(names)} outputs ({', '.join(names)}) that lead to {len(starts)} different tensors",
            way_out="choose one with output=NAME",
        )
    logits = starts[0]
    # Several outputs may share the logits: the one nearest to them tells most, the others are its relatives.
    nearest = min(chosen, key=lambda name: len(walks[name][1]))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _keep_ancestors(copy.graph, logits)
    known = {value.name: value for value in (*model.graph.output, *model.graph.value_info, *model.graph.input)}
    del copy.graph.output[:]
    copy.graph.output.append(known.get(logits, helper.make_tensor_value_info(logits, TensorProto.FLOAT, None)))
    tail = Tail(
        logits=logits,
        output=nearest,
        operators=tuple(label(node) for node in walks[nearest][1]),
        dropped=tuple(name for name in names if name != nearest),
    )
    return copy, tail


def _walk(graph: onnx.GraphProto, name: str, *, keep_sigmoid: bool) -> tuple[str, list[onnx.NodeProto]]:
    """Walk up from an output through its tail: the tensor above it, and the tail's nodes, first to last."""
    producers = {output: node for node in graph.node for output in node.output if output}
    initializers = {tensor.name for tensor in graph.initializer}
    passed: list[onnx.NodeProto] = []
    while (node := producers.get(name)) is not None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) not in TAIL_OPERATORS or (keep_sigmoid and node.op_type == "Sigmoid"):
            break
        data = _data_input(node, initializers)
        if data not in producers:
            break  # The tail would be the whole model: what reads the graph's input is no tail.
        passed.append(node)
        name = data
    return name, passed[::-1]


def _data_input(node: onnx.NodeProto, initializers: set[str]) -> str:
    """The input that carries the values; ArrayFeatureExtractor looks labels up by its second."""
    if node.op_type == "ArrayFeatureExtractor" and node.input[0] in initializers:
        return str(node.input[1])
    return str(node.input[0])


def _keep_ancestors(graph: onnx.GraphProto, logits: str) -> None:
    """Drop every node ``logits`` does not depend on."""
    from_body = {output: node for node in graph.node for output in node.output if output}
    wanted: set[str] = set()
    stack = [logits]
    while stack:
        name = stack.pop()
        node = from_body.get(name)
        if node is None or node.output[0] in wanted:
            continue
        wanted.add(node.output[0])
        stack.extend(reads(node))
    kept = [node for node in graph.node if node.output[0] in wanted]
    del graph.node[:]
    graph.node.extend(kept)
