"""``onnxadmm.rule``: what a user tells of an operator that the package does not know."""

import inspect
from collections.abc import Callable, Sequence

import onnx

from onnxadmm.errors import OptionError
from onnxadmm.operators.call import ShapeFunction, broadcast_of
from onnxadmm.operators.outside import declare_outside
from onnxadmm.operators.table import Moves
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.visit import Visit
from onnxadmm.train.lowering.writer import Nodes, Writer
from onnxadmm.train.prepare.workspace import Workspace

Label = Callable[[Visit], None]
Rewrite = Callable[[Edit], None]
OwnLowering = Callable[[Writer, onnx.NodeProto], str]
OwnGradient = Callable[[Writer, onnx.NodeProto, Sequence[str]], Sequence[str | None]]


def rule(
    operator: str,
    *,
    domain: str,
    note: str = "",
    elementwise: bool = False,
    moves: Moves | None = None,
    keeps_zero: bool = False,
    weights: tuple[int, ...] = (),
    vectors: tuple[int, ...] = (),
    indices: tuple[int, ...] = (),
    rewrite: Rewrite | None = None,
    shape: ShapeFunction | None = None,
    lowering: OwnLowering | None = None,
    gradient: OwnGradient | None = None,
) -> Callable[[Label], Label]:
    """Declare an operator of one's own, by decorating its label function.

    The label function receives a ``Visit``: the node with the labels of its operands. It says which positions of them
    live and die together and which must stay, states the axes of the results, and what the node costs. Without a rule
    an operator locks whatever it touches, and the rest of the model is still pruned.

    Args:
        operator: as in ``op_type`` of the node.
        domain: as in the model; operators of ONNX that this package has no rule for are of the domain ``""``.
        note: one line on what the rule does.
        elementwise: every element of the result comes from the elements at its place, after broadcasting.
        moves: how it moves elements without changing them: ``"view"``, all in their order; ``"order"``, all in another
            order; ``"repeat"``, some several times; ``"pick"``, some of them.
        keeps_zero: zero in gives zero out at the same position, so that a weight behind it can be cut at its origin.
        weights: indices of operands that hold a layer's weights, which train.
        vectors: indices of operands with one number per channel beside a weight, which train.
        indices: indices of operands that are sizes, positions or limits: no gradient flows to them.
        rewrite: adapts attributes and constant operands of a node when positions have been removed.
        shape: gives element type and lengths of each result, from a ``Call``; not needed for an element-wise operator,
            whose result has the shape of its operands after broadcasting.
        lowering: for training, writes the operator in operators of ONNX: receives a ``Writer`` and the node, and
            returns the name of the value that is the node's first result.
        gradient: for training, writes its gradient in operators of ONNX: receives a ``Writer``, the node, and the names
            of the gradients of its results; returns for each operand the name of its gradient, or None. The forward
            pass runs the operator itself, so its custom-operator library is needed.

    Returns:
        A decorator that gives the label function back.

    Raises:
        OptionError: the operator has a rule already, or the declaration contradicts itself.

    Examples:
        ```python
        @oa.rule("Scale2", domain="com.example", elementwise=True)
        def scale2(visit):
            visit.set_result(visit.operand(0).axes)
        ```
    """
    if lowering is not None and gradient is not None:
        raise OptionError(
            f"rule of {domain}::{operator}",
            expected="a lowering or a gradient",
            found="both",
            way_out="keep the lowering: what it writes has gradients",
        )
    domain = "" if domain == "ai.onnx" else domain

    def register(label: Label) -> Label:
        if not inspect.isfunction(label):
            raise OptionError(
                f"rule of {domain}::{operator}",
                expected="a function to decorate",
                found=type(label).__name__,
                way_out="write def name(visit): ... below the decorator",
            )
        declare_outside(
            operator,
            domain,
            label=label,
            note=note,
            elementwise=elementwise,
            moves=moves,
            keeps_zero=keeps_zero,
            weights=weights,
            vectors=vectors,
            indices=indices,
            rewrite=rewrite,
            shape=shape if shape is not None or not elementwise else broadcast_of(),
            lowering=None if lowering is None else _as_lowering(lowering),
            gradient=gradient,
        )
        return label

    return register


def _as_lowering(write_result: OwnLowering) -> Callable[[Workspace, onnx.NodeProto], Nodes]:
    def lower(space: Workspace, node: onnx.NodeProto) -> Nodes:
        write = Writer(space, node)
        result = write_result(write, node)
        write.set_output(result, node.output[0])
        return write.nodes

    return lower
