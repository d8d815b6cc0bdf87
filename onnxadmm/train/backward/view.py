"""What the gradient builder is shown of a graph: the nodes a gradient passes, and everything else as inputs.

The builder stumbles over operators beside the gradient's path (control flow crashes it), and would follow paths that
are to stop. So it sees neither; their nodes are put back beside the backward pass it wrote.
"""

from collections.abc import Sequence

import onnx
from onnx import helper

from onnxadmm.train.prepare.differentiable import trace_gradients
from onnxadmm.train.prepare.nodes import reads, sort_nodes


def show_gradient_path(
    forward: onnx.ModelProto, *, loss: str, weights: Sequence[str], outputs: Sequence[str]
) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """A copy without the nodes no gradient passes, and these nodes.

    Args:
        forward: types of all values recorded.
        outputs: what must stay computable, besides the loss.
    """
    trace = trace_gradients(forward.graph.node, weights=frozenset(weights), logits=loss)
    hidden = [node for node in forward.graph.node if not trace.holds(node)]
    if not hidden:
        return forward, []
    copy = onnx.ModelProto()
    copy.CopyFrom(forward)
    graph = copy.graph
    known = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    made = {name for node in hidden for name in node.output if name}
    shown = [node for node in forward.graph.node if trace.holds(node)]
    own = {name for node in shown for name in node.output if name}
    del graph.node[:], graph.output[:]
    graph.node.extend(shown)

    def value(name: str) -> onnx.ValueInfoProto:
        return known.get(name) or helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    read = {name for node in shown for name in reads(node)}
    graph.input.extend(value(name) for name in sorted(read & made))
    # What only hidden nodes read would be dropped as dead.
    wanted = {name for node in hidden for name in reads(node)} | {loss, *outputs}
    graph.output.extend(value(name) for name in sorted(wanted & own))
    return copy, hidden


def restore_hidden(graph: onnx.GraphProto, hidden: list[onnx.NodeProto], forward: onnx.GraphProto) -> None:
    """Put hidden nodes, and what only they read, back into the graph with the backward pass, in place."""
    made = {name for node in hidden for name in node.output}
    inputs = [value for value in graph.input if value.name not in made]
    nodes = sort_nodes([*graph.node, *hidden])
    del graph.input[:], graph.node[:]
    graph.input.extend(inputs)
    graph.node.extend(nodes)
    listed = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    graph.input.extend(value for value in forward.input if value.name not in listed)
    graph.initializer.extend(tensor for tensor in forward.initializer if tensor.name not in listed)
    outputs = {value.name for value in graph.output}
    graph.output.extend(value for value in forward.output if value.name not in outputs)
