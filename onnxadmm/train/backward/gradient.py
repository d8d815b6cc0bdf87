"""The gradient graph of a training copy, with the backward pass that either engine writes."""

from collections.abc import Sequence

import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.backward.own import has_own_gradient, show_stand_ins, write_own_gradients
from onnxadmm.train.backward.reverse import append_backward
from onnxadmm.train.backward.view import restore_hidden, show_gradient_path
from onnxadmm.train.engine import IR_VERSION, Engine, differentiate


def gradient_name(weight: str) -> str:
    """Name of the gradient of a weight."""
    return f"{weight}_grad"


def build_gradient_graph(
    forward: onnx.ModelProto,
    *,
    loss: str,
    weights: Sequence[str],
    outputs: Sequence[str],
    engine: Engine,
    single: bool = False,
) -> onnx.ModelProto:
    """Append the backward pass of ``loss`` to a forward graph.

    Args:
        forward: graph with every shape known, whose inputs include ``weights`` and whose outputs include ``loss``.
        loss: name of a float32 scalar output.
        weights: graph inputs to differentiate by.
        outputs: names of further tensors the result must put out.
        engine: who differentiates.
        single: whether the graph runs in sessions of one thread only.

    Returns:
        The graph with outputs ``loss``, then ``outputs``, then the gradient of each weight, named by
        ``gradient_name``, in the order of ``weights``. It runs after ``make_faster`` for the same engine.

    Raises:
        TrainingUnavailableError: the installed onnxruntime has no training API.
        NotTrainableError: the builder cannot differentiate the graph, or found no path to some weight.
    """
    if engine == "plain":
        names = {weight: gradient_name(weight) for weight in weights}
        graph = append_backward(forward, loss=loss, names=names, single=single)
    else:
        graph = _by_training_engine(forward, loss=loss, weights=weights, outputs=outputs)
    made = {output.name: output for output in graph.graph.output}
    wanted = [loss, *outputs, *(gradient_name(name) for name in weights)]
    missing = [name for name in wanted if name not in made]
    if missing:
        raise NotTrainableError(
            f"gradient of {loss}",
            expected=f"a gradient for each of {len(weights)} weights",
            found=f"none for {', '.join(missing)}",
            way_out="freeze these weights",
        )
    del graph.graph.output[:]
    graph.graph.output.extend(made[name] for name in wanted)
    graph.ir_version = min(graph.ir_version, IR_VERSION)
    return graph


def _by_training_engine(
    forward: onnx.ModelProto, *, loss: str, weights: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """What the engine's builder appends, with what it must not see put back."""
    shown, hidden = show_gradient_path(forward, loss=loss, weights=weights, outputs=outputs)
    own: dict[str, onnx.NodeProto] = {}
    if any(has_own_gradient(node) for node in shown.graph.node):
        copy = onnx.ModelProto()
        copy.CopyFrom(shown)
        shown, own = copy, show_stand_ins(copy)
    graph = onnx.load_from_string(differentiate(shown.SerializeToString(), loss=loss, weights=weights))
    if own:
        graph = write_own_gradients(graph, own)
    if hidden:
        restore_hidden(graph.graph, hidden, forward.graph)
    return graph
