"""From a user's model to the graph that trains: a lowered copy of fixed batch size, a loss, and its backward pass.

Nothing is written to disk. The user's graph is never changed; weights keep their initializer names throughout.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnx.utils
from numpy.typing import NDArray

from onnxadmm.errors import NotTrainableError, OptionError
from onnxadmm.graph.model import Model
from onnxadmm.train.backward.blocks import channel_block
from onnxadmm.train.backward.faster import make_faster
from onnxadmm.train.backward.gradient import build_gradient_graph
from onnxadmm.train.batch_statistics import Statistics, statistics_outputs, use_batch_statistics, write_out_statistics
from onnxadmm.train.engine import IR_VERSION, Engine, EngineChoice, choose_engine
from onnxadmm.train.losses import LABELS, LOSS, TEACHER, WEIGHTS, Loss, Task, append_loss
from onnxadmm.train.lowering.apply import lower
from onnxadmm.train.lowering.normalise import normalise, stamp_shapes
from onnxadmm.train.prepare.batch import batch_length
from onnxadmm.train.prepare.differentiable import check_differentiable
from onnxadmm.train.prepare.nodes import as_proto, label, write_out_ifs
from onnxadmm.train.prepare.opset import OLDEST_OPSET, RAISED_OPSET, convert_opset
from onnxadmm.train.prepare.tail import Tail, cut_tail
from onnxadmm.train.prepare.trainable import constant_names, find_trainable
from onnxadmm.train.prepare.workspace import Workspace

FloatArray = NDArray[np.float32]

#: Least operator set of a copy: gradients of our own add up by indices, which ONNX can since 16.
_OLDEST: Final[Mapping[Engine, int]] = {"training": OLDEST_OPSET, "plain": RAISED_OPSET}


@dataclass(frozen=True)
class InputSpec:
    """An input of the training graph.

    Attributes:
        shape: with the batch size on axis 0.
        dtype: numpy dtype the engine reads.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Artifacts:
    """A graph with its backward pass.

    Attributes:
        engine: who differentiated it.
        forward: loss graph without backward pass; weights and data are graph inputs.
        gradient: the same with ``LOSS``, the logits and one gradient per weight as outputs.
        inputs: what a batch must provide, labels and teacher logits excluded.
        weights: initial values of what is trained, float32, C-contiguous, by the user's initializer names.
        logits: name of the logits; ``logits_shape`` their shape, batch first.
        labels: spec of the labels, None when the loss needs none.
        teacher: spec of the teacher's logits, None when the loss needs none.
        sample_weights: spec of what samples or positions count, None when all count alike.
        tail: what was cut off.
        frozen: float initializers of the model's layers that no gradient reaches.
        untrainable: weights that keep their values because an operator without gradient stands between them and the
            loss, with that operator; empty unless they were to be frozen.
        statistics: of the normalisations that train with those of each batch; further outputs of ``forward``.
    """

    engine: Engine
    forward: onnx.ModelProto
    gradient: onnx.ModelProto
    inputs: tuple[InputSpec, ...]
    weights: Mapping[str, FloatArray]
    logits: str
    logits_shape: tuple[int, ...]
    labels: InputSpec | None
    teacher: InputSpec | None
    tail: Tail
    frozen: tuple[str, ...]
    untrainable: Mapping[str, str]
    statistics: tuple[Statistics, ...] = ()
    sample_weights: InputSpec | None = None

    @property
    def batch_size(self) -> int:
        return self.logits_shape[0]


def prepare(
    model: onnx.ModelProto | Model,
    *,
    loss: Loss,
    batch_size: int,
    trainable: Sequence[str] | None = None,
    output: str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    freeze_untrainable: bool = False,
    batch_statistics: Collection[str] = (),
    engine: EngineChoice = "auto",
    threads: int = 0,
) -> Artifacts:
    """Build everything a training step needs.

    Args:
        model: left as it is.
        loss: what is minimised.
        batch_size: samples per step, stamped on the copy everywhere.
        trainable: names of the initializers to train; all weights of layers when omitted.
        output: output the loss uses, needed when several lead to different logits.
        input_shapes: shape of one sample per input, without the batch, where the model leaves it open.
        freeze_untrainable: keep the values of weights whose gradient would have to pass an operator without one,
            instead of refusing the model; ``untrainable`` of the result names them.
        batch_statistics: names of the means of BatchNormalizations that train with the statistics of each batch; the
            others keep theirs.
        engine: who differentiates.
        threads: of the sessions that will run it; 0 if that is not known.

    Raises:
        NotTrainableError: an operator has no gradient, weights are not float32, or shapes stay unknown.
        OptionError: an option names something the model has not, or a batch size below 1.
        TrainingUnavailableError: the engine that was asked for does not work here.
    """
    chosen = choose_engine(engine)
    if batch_size < 1:
        raise OptionError("--batch-size", expected="at least 1", found=str(batch_size), way_out="use 32 to 256")
    proto = as_proto(model)
    copy, tail = cut_tail(proto, output=output, keep_sigmoid=loss.task is Task.MSE)
    copy.ir_version = IR_VERSION  # of old ones, initializers would have to be inputs
    exported = batch_length(copy.graph)
    copy = convert_opset(copy, oldest=_OLDEST[chosen])
    copy = stamp_shapes(copy, batch_size=batch_size, input_shapes=input_shapes or {})
    space = Workspace(write_out_ifs(copy))
    # Constants that inlining and expansion bring along are not the user's.
    own = constant_names(proto)
    normalise(
        space, names=lambda: find_trainable(space, chosen=trainable) & own, batch_size=batch_size, exported=exported
    )
    statistics = use_batch_statistics(space, batch_statistics)
    refused = lower(space, weights=space.protected, logits=tail.logits)
    space.fold()
    space.drop_dead()
    candidates = frozenset(name for name in space.protected if name in space.constants)
    # Operators first: one that nobody knows also hides the shape of what follows it.
    reach = check_differentiable(
        space, weights=candidates, logits=tail.logits, refused=refused, freeze_untrainable=freeze_untrainable
    )
    reached = reach.weights
    shape = _logits_shape(space, tail.logits, batch_size)
    weights = {name: np.array(space.constants[name], np.float32, order="C") for name in sorted(reached)}
    if not weights:
        quantised = next(
            (node for node in space.graph.node if "Linear" in node.op_type or "Quant" in node.op_type), None
        )
        if quantised is not None and not reach.untrainable:
            raise NotTrainableError(
                label(quantised),
                expected="float32 weights",
                found="a quantised model, whose weights are integers",
                way_out="compress the float32 model, then quantise the result",
            )
        raise NotTrainableError(
            "model",
            expected="at least one float32 weight a gradient of the loss reaches",
            found="none",
            way_out="check that the chosen output depends on the weights",
        )
    plain = chosen == "plain"
    if plain:
        write_out_statistics(space)
    forward = space.as_model(inputs=sorted(weights))
    added = append_loss(forward, logits=tail.logits, shape=shape, loss=loss, written_out=plain)
    if all(value.name != tail.logits for value in forward.graph.output):
        forward.graph.output.append(onnx.helper.make_tensor_value_info(tail.logits, onnx.TensorProto.FLOAT, shape))
    made = {name for node in forward.graph.node for name in node.output}
    statistics = tuple(item for item in statistics if item.mean_output in made)
    forward.graph.output.extend(statistics_outputs(statistics))
    forward = onnx.shape_inference.infer_shapes(forward, data_prop=True)
    built = build_gradient_graph(
        forward, loss=LOSS, weights=sorted(weights), outputs=[tail.logits], engine=chosen, single=threads == 1
    )
    gradient = make_faster(built, block=channel_block(), engine=chosen)
    return Artifacts(
        engine=chosen,
        forward=forward,
        gradient=gradient,
        inputs=_input_specs(forward, skip={*weights, *added}),
        weights=weights,
        logits=tail.logits,
        logits_shape=shape,
        labels=InputSpec(LABELS, loss.label_shape(shape), np.dtype(loss.label_dtype())) if LABELS in added else None,
        teacher=InputSpec(TEACHER, shape, np.dtype(np.float32)) if TEACHER in added else None,
        tail=tail,
        frozen=tuple(sorted(candidates - reached - reach.untrainable.keys())),
        untrainable=reach.untrainable,
        statistics=statistics,
        sample_weights=InputSpec(WEIGHTS, loss.weight_shape(shape), np.dtype(np.float32)) if WEIGHTS in added else None,
    )


def _logits_shape(space: Workspace, logits: str, batch_size: int) -> tuple[int, ...]:
    shape, kind = space.shape(logits), space.element_type(logits)
    if kind != onnx.TensorProto.FLOAT:
        name = "unknown" if not kind else onnx.TensorProto.DataType.Name(kind).lower()
        raise NotTrainableError(
            f"logits {logits}",
            expected="float32",
            found=name,
            way_out="choose another output, or convert the model to float32 first",
        )
    if shape is None and (stranger := _first_unknown(space)) is not None:
        raise NotTrainableError(
            label(stranger),
            expected="an operator whose result has a known shape",
            found=f"{stranger.op_type} of domain {stranger.domain or 'ai.onnx'}, whose result has none",
            way_out="simplify the model, or export it with a symbolic batch dimension",
        )
    if shape is None or not shape or shape[0] != batch_size:
        raise NotTrainableError(
            f"logits {logits}",
            expected=f"a known shape with the batch size {batch_size} on axis 0",
            found="an unknown shape" if shape is None else f"shape {list(shape)}",
            way_out="export it with a symbolic batch dimension, or train with the batch size it was exported for",
        )
    return shape


def _first_unknown(space: Workspace) -> onnx.NodeProto | None:
    return next((n for n in space.graph.node if n.output[0] and space.shape(n.output[0]) is None), None)


def _input_specs(forward: onnx.ModelProto, *, skip: set[str]) -> tuple[InputSpec, ...]:
    specs = []
    for value in forward.graph.input:
        if value.name not in skip:
            tensor = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            specs.append(InputSpec(value.name, tuple(d.dim_value for d in tensor.shape.dim), np.dtype(dtype)))
    return tuple(specs)
