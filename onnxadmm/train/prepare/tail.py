"""Cutting what stands after the logits off the training copy: Softmax, ArgMax, Cast, ZipMap and their like.

The loss is taken of logits, and losses that start from probabilities or labels either lose digits or have no
gradient. The graph that ships keeps its tail.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.errors import NotTrainableError, OptionError
from onnxadmm.graph.model import from_proto
from onnxadmm.graph.shapes import infer
from onnxadmm.train.prepare.batch import batch_length
from onnxadmm.train.prepare.nodes import attribute, label, opset_of, reads

#: Operators with one data input that may stand between logits and an output.
TAIL_OPERATORS = frozenset(
    {
        ("", "ArgMax"),
        ("", "ArgMin"),
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
#: What makes class numbers or names of scores; behind it, the layout of labels may still be changed.
_CHOICES = frozenset({"ArgMax", "ArgMin", "ArrayFeatureExtractor", "LabelEncoder", "TopK"})
_LAYOUTS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
#: Operators along one axis, which holds the classes, with the axis they take where none is given.
_CLASS_AXES = {"ArgMax": 0, "ArgMin": 0, "LogSoftmax": -1, "Softmax": -1, "TopK": -1}
#: Of these, those that below opset 13 took everything from their axis on, by default from 1 on, as one axis.
_FLATTENING = frozenset({"LogSoftmax", "Softmax"})
_TWO_CLASSES = "onnxadmm.two_classes"


@dataclass(frozen=True)
class Tail:
    """What was cut.

    Attributes:
        logits: tensor the loss is taken of.
        output: output of the original it leads to.
        operators: operators between the two, first to last, as ``"Softmax (node_7)"``.
        dropped: outputs of the original the training copy does not have.
        class_axis: axis of the logits along which the tail takes its Softmax or ArgMax, as the file states it (from
            the end where negative); None where it has none.
        flattened: whether that operator takes all axes from this one on as one, as those before opset 13 do.
    """

    logits: str
    output: str
    operators: tuple[str, ...]
    dropped: tuple[str, ...]
    class_axis: int | None = None
    flattened: bool = False

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
    starts = logits_of(model, output=output, keep_sigmoid=keep_sigmoid)
    if len(starts) != 1:
        raise NotTrainableError(
            "loss",
            expected="one output to take it of",
            found=f"{len(names)} outputs ({', '.join(names)}) that lead to {len(starts)} different tensors",
            way_out="choose one with --output NAME, or train from the teacher alone on all of them with "
            "--distillation 1",
        )
    ((logits, walks),) = starts.items()
    # Several outputs may share the logits: the one nearest to them tells most, the others are its relatives.
    nearest = min(walks, key=lambda name: len(walks[name]))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name: value for value in (*model.graph.output, *model.graph.value_info, *model.graph.input)}
    start = known.get(logits, helper.make_tensor_value_info(logits, TensorProto.FLOAT, None))
    score = _single_score(model.graph, logits)
    if score is not None:
        logits = _two_classes(copy.graph, score)
        start = helper.make_tensor_value_info(logits, TensorProto.FLOAT, None)
    _keep_ancestors(copy.graph, logits)
    del copy.graph.output[:]
    copy.graph.output.append(start)
    axis, flattened = _class_axis([node for walk in walks.values() for node in walk], opset=opset_of(model))
    tail = Tail(
        logits=logits,
        output=nearest,
        operators=tuple(label(node) for node in walks[nearest]),
        dropped=tuple(name for name in names if name != nearest),
        class_axis=axis,
        flattened=flattened,
    )
    return copy, tail


def logits_of(
    model: onnx.ModelProto, *, output: str | None = None, keep_sigmoid: bool = False
) -> Mapping[str, Mapping[str, list[onnx.NodeProto]]]:
    """Find the tensors that outputs lead to, each with those outputs and their tails, first to last.

    Args:
        output, keep_sigmoid: as for ``cut_tail``.

    Raises:
        OptionError: ``output`` is not an output of the model.
    """
    names = [value.name for value in model.graph.output]
    if output is not None and output not in names:
        raise OptionError(
            "--output",
            expected=f"one of {', '.join(names)}",
            found=repr(output),
            way_out="name one of them",
        )
    starts: dict[str, dict[str, list[onnx.NodeProto]]] = {}
    for name in names if output is None else [output]:
        start, passed = _walk(model.graph, name, keep_sigmoid=keep_sigmoid)
        while (view := _merging_view(model, start)) is not None:
            start, before = _walk(model.graph, view.input[0], keep_sigmoid=keep_sigmoid)
            passed = [*before, view, *passed]
        starts.setdefault(start, {})[name] = passed
    return starts


def _walk(graph: onnx.GraphProto, name: str, *, keep_sigmoid: bool) -> tuple[str, list[onnx.NodeProto]]:
    """Walk up from an output through its tail: the tensor above it, and the tail's nodes, first to last."""
    producers = _producers(graph)
    constants = _constants(graph)
    passed: list[onnx.NodeProto] = []
    while (node := producers.get(name)) is not None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not ((domain, node.op_type) in TAIL_OPERATORS or _moves_labels(node, producers, constants)):
            break
        if keep_sigmoid and node.op_type == "Sigmoid":
            break
        data = _data_input(node, constants)
        if data not in producers:
            break  # The tail would be the whole model: what reads the graph's input is no tail.
        passed.append(node)
        name = data
    return name, passed[::-1]


def _merging_view(model: onnx.ModelProto, name: str) -> onnx.NodeProto | None:
    """The Reshape behind which samples are no longer counted by an axis, as [N, 2] -> [2 N, 1]; None where none is.

    Converters lay all numbers of a regression in one column, and language models all positions of all samples.
    """
    node = _producers(model.graph).get(name)
    if node is None or node.op_type != "Reshape" or node.domain not in ("", "ai.onnx"):
        return None
    if node.input[0] not in _producers(model.graph):
        return None
    shapes = infer(from_proto(model))
    batch = batch_length(model.graph) or shapes.batch
    before, after = shapes.shape(node.input[0]), shapes.shape(name)
    if not before or not after or before[0] != batch or after[0] == batch or after[0] % batch:
        return None
    return node


def _producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in graph.node for output in node.output if output}


def _constants(graph: onnx.GraphProto) -> set[str]:
    made = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    return made | {tensor.name for tensor in graph.initializer}


def _moves_labels(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], constants: set[str]) -> bool:
    """Whether a node only lays out anew, or looks up, what an ArgMax or its like has chosen."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _LAYOUTS | {"Gather"}:
        return False
    if node.op_type == "Gather" and node.input[0] not in constants:
        return False
    above: onnx.NodeProto | None = node
    while above is not None and above.op_type not in _CHOICES:
        if above.op_type not in _LAYOUTS | {"Cast", "Gather", "Identity"}:
            return False
        above = producers.get(_data_input(above, constants))
    return above is not None


def _data_input(node: onnx.NodeProto, constants: set[str]) -> str:
    """The input that carries the values; a table is looked up by the second."""
    if node.op_type in ("ArrayFeatureExtractor", "Gather") and node.input[0] in constants:
        return str(node.input[1])
    return str(node.input[0])


def _class_axis(nodes: list[onnx.NodeProto], *, opset: int) -> tuple[int | None, bool]:
    """The axis of the first operator along classes, and whether it takes the axes behind that one along."""
    merged = False
    for node in nodes:
        if node.op_type == "Normalizer" and node.domain == "ai.onnx.ml":
            return 1, False
        if node.op_type in _CLASS_AXES and node.domain in ("", "ai.onnx"):
            flattening = node.op_type in _FLATTENING and opset < 13
            axis = int(attribute(node, "axis", 1 if flattening else _CLASS_AXES[node.op_type]))
            # Behind a view that merges axes only the last one is still the same.
            return (None if merged and axis != -1 else axis), flattening
        merged = merged or node.op_type == "Reshape"
    return None, False


def _single_score(graph: onnx.GraphProto, name: str) -> str | None:
    """The s behind the two probabilities [1 - sigmoid(s), sigmoid(s)], as converters of binary classifiers write them.

    None where ``name`` is something else.
    """
    producers = _producers(graph)
    pair = producers.get(name)
    if pair is None or pair.op_type != "Concat" or len(pair.input) != 2 or attribute(pair, "axis", 0) not in (1, -1):
        return None
    other, sigmoid = (producers.get(value) for value in pair.input)
    if other is None or sigmoid is None or other.op_type != "Sub" or sigmoid.op_type != "Sigmoid":
        return None
    ones = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == other.input[0]]
    ones += [
        numpy_helper.to_array(attribute(node, "value", None))
        for node in graph.node
        if node.op_type == "Constant" and node.output[0] == other.input[0] and attribute(node, "value", None)
    ]
    if other.input[1] != sigmoid.output[0] or not ones or not (ones[0] == 1).all():
        return None
    return str(sigmoid.input[0])


def _two_classes(graph: onnx.GraphProto, score: str) -> str:
    """Append the logits [0, s], whose softmax is [1 - sigmoid(s), sigmoid(s)]."""
    zero = f"{_TWO_CLASSES}.zero"
    graph.node.append(helper.make_node("Sub", [score, score], [zero], name=zero))
    graph.node.append(helper.make_node("Concat", [zero, score], [_TWO_CLASSES], name=_TWO_CLASSES, axis=1))
    return _TWO_CLASSES


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
