"""The part of the preflight that runs in a process of its own: ``python -m onnxadmm.train.preflight.child FOLDER``.

FOLDER holds ``model.onnx``, ``batch.npz`` and ``order.json``; ``result.json`` and ``stage.txt`` are written there.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxadmm.child_process import end_with_parent
from onnxadmm.errors import NotTrainableError, OnnxAdmmError
from onnxadmm.operators.outside import Source, load_sources
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.train.artifacts import Artifacts, prepare
from onnxadmm.train.backward.faster import make_faster
from onnxadmm.train.backward.gradient import build_gradient_graph, gradient_name
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.engine import BoundSession
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import LOSS, Loss, Task
from onnxadmm.train.metrics import sample_losses
from onnxadmm.train.preflight.gradient_check import Check, choose, compare
from onnxadmm.train.prepare.differentiable import gradient_inputs, trace_gradients
from onnxadmm.train.prepare.nodes import label
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]
#: Largest difference of logits between the training copy and the original, relative to the largest logit.
VALUE_TOLERANCE = 2e-3


def main(folder: Path) -> None:
    """Run the order in ``folder``."""
    end_with_parent()
    order = json.loads((folder / "order.json").read_text())
    with custom_operators(order["custom_ops"], tried=True):
        _run(folder, order)


def _run(folder: Path, order: Mapping[str, Any]) -> None:
    if order["probe"]:
        _probe_all(folder, order)
        return
    try:
        result: dict[str, Any] = _fly(folder, order)
    except OnnxAdmmError as error:
        parts = {key: getattr(error, key) for key in ("thing", "expected", "found", "way_out")}
        result = {"error": type(error).__name__, **parts}
    (folder / "result.json").write_text(json.dumps(result))


def _stage(folder: Path, text: str) -> None:
    (folder / "stage.txt").write_text(text)


def _loss_of(order: Mapping[str, Any]) -> Loss:
    return Loss(Task(order["task"]), order["distillation"], order["temperature"], order["gaps"], order["weighted"])


def _inputs(folder: Path) -> dict[str, NDArray[Any]]:
    with np.load(folder / "batch.npz") as stored:
        return {name: stored[name] for name in stored.files}


def _settings(order: Mapping[str, Any]) -> dict[str, Any]:
    shapes = {name: tuple(shape) for name, shape in order["input_shapes"].items()}
    keys = ("batch_size", "trainable", "output", "freeze_untrainable", "engine")
    return {"loss": _loss_of(order), "input_shapes": shapes, **{key: order[key] for key in keys}}


def _fly(folder: Path, order: Mapping[str, Any]) -> dict[str, Any]:
    load_sources([Source(**source) for source in order["rules"]])
    model = onnx.load(folder / "model.onnx")
    loss = _loss_of(order)
    inputs = _inputs(folder)
    labels, counts = inputs.pop("labels/", None), inputs.pop("weights/", None)
    _stage(folder, "building the training graph")
    with OrtTrainer(model, threads=order["threads"], **_settings(order)) as trainer:
        made = trainer.artifacts
        _stage(folder, "running the original")
        names = list(trainer.weights)
        plain = Predictor(model, task=loss.task, threads=order["threads"], output=order["output"], replaceable=names)
        given = {spec.name: inputs[spec.name] for spec in made.inputs if spec.name in inputs}
        logits = plain.logits(dict(inputs))
        labels, teacher = _targets(loss, made, logits, labels)
        _stage(folder, "taking a step")
        value = trainer.backward(Batch(given, labels, teacher, order["batch_size"], weights=counts))
        gradients = {name: array.copy() for name, array in trainer.gradients.items()}
        weights = trainer.snapshot()
        own = trainer.logits.copy()
    readers = _readers(made)
    _check_values(own, logits, made)
    _check_finite(value, gradients, readers)

    def loss_at(constants: Mapping[str, FloatArray]) -> float:
        result = plain.logits(dict(inputs), constants=constants).astype(np.float64)
        return float(sample_losses(result, labels, teacher, loss, counts).mean())

    _stage(folder, "comparing gradients")
    checks = [
        compare(loss_at, weights, gradients, names=names, weight="all weights", operator="the whole graph", seed=0)
    ]
    for seed, name in enumerate(choose(readers, order["checked"]), start=1):
        checks.append(
            compare(loss_at, weights, gradients, names=[name], weight=name, operator=readers[name], seed=seed)
        )
    _refuse_wrong(checks)
    return {
        "loss": value,
        "checks": [asdict(check) for check in checks],
        "frozen": list(made.frozen),
        "untrainable": dict(made.untrainable),
    }


def _targets(
    loss: Loss, made: Artifacts, logits: FloatArray, labels: NDArray[Any] | None
) -> tuple[NDArray[Any] | None, FloatArray | None]:
    """Labels where the user has some, random ones otherwise; a teacher that differs, for its gradient not to be 0."""
    generator = np.random.default_rng(0)
    spread = float(logits.std()) or 1.0
    if made.labels is None:
        labels = None
    elif labels is None or labels.shape != made.labels.shape:
        if loss.task is Task.CROSS_ENTROPY:
            labels = generator.integers(0, made.logits_shape[1], made.labels.shape)
        elif loss.task is Task.BCE:
            labels = generator.random(made.labels.shape).astype(np.float32)
        else:
            labels = (logits + spread * generator.standard_normal(logits.shape)).astype(np.float32)
    teacher = None
    if made.teacher is not None:
        teacher = (logits + spread * generator.standard_normal(logits.shape)).astype(np.float32)
    return labels, teacher


def _readers(made: Artifacts) -> dict[str, str]:
    """The operator of the training copy each weight is read by first, in the order of the graph."""
    found: dict[str, str] = {}
    for node in made.forward.graph.node:
        for name in node.input:
            if name in made.weights:
                found.setdefault(name, label(node))
    return found


def _check_values(own: FloatArray, plain: FloatArray, made: Artifacts) -> None:
    scale = max(1.0, float(np.abs(plain).max()))
    difference = float(np.abs(own - plain).max()) / scale if own.shape == plain.shape else float("inf")
    if difference <= VALUE_TOLERANCE or not np.isfinite(plain).all():
        return
    raise NotTrainableError(
        f"training copy up to {made.logits}",
        expected="the outputs of the original",
        found=f"a relative difference of {difference:.2g}",
        way_out="simplify the model first, or report the model",
    )


def _check_finite(value: float, gradients: Mapping[str, FloatArray], readers: Mapping[str, str]) -> None:
    broken = [name for name in readers if not np.isfinite(gradients[name]).all()]
    if broken:
        # NaN runs from the loss towards the inputs: the last weight is the nearest to where it began.
        raise NotTrainableError(
            f"gradient of weight {broken[-1]}, read by {readers[broken[-1]]}",
            expected="finite numbers",
            found=f"NaN or infinity, in {len(broken)} of {len(gradients)} weights, at a loss of {value:.4g}",
            way_out="check the data for constant or missing values, and the model for divisions by 0",
        )


def _refuse_wrong(checks: list[Check]) -> None:
    wrong = [check for check in checks if check.verdict == "wrong"]
    if wrong:
        check = wrong[-1]
        raise NotTrainableError(
            f"gradient of weight {check.weight}, read by {check.operator}",
            expected=f"a slope of {check.difference:.4g}, as differences of the loss show",
            found=f"{check.gradient:.4g} from the engine",
            way_out="leave this weight out of training",
        )


def _probe_all(folder: Path, order: Mapping[str, Any]) -> None:
    """Run each kind of node on the gradient's path alone, its name written down before; a crash leaves it there."""
    load_sources([Source(**source) for source in order["rules"]])
    made = prepare(onnx.load(folder / "model.onnx"), **_settings(order))
    nodes = made.forward.graph.node
    trace = trace_gradients(nodes, weights=frozenset(made.weights), logits=LOSS)
    types = {
        value.name: value.type.tensor_type
        for value in (*made.forward.graph.value_info, *made.forward.graph.input, *made.forward.graph.output)
    }
    constants = {tensor.name: tensor for tensor in made.forward.graph.initializer}
    seen: set[bytes] = set()
    for node in nodes:
        if trace.holds(node):
            probe = _probe(made, node, trace.carries, types, constants)
            key = node.op_type.encode() + b"".join(item.SerializeToString() for item in node.attribute)
            if probe is not None and key not in seen:
                seen.add(key)
                _stage(folder, label(node))
                _run_probe(probe)
    _stage(folder, "")


def _probe(
    made: Artifacts,
    node: onnx.NodeProto,
    carries: frozenset[str],
    types: Mapping[str, onnx.TypeProto.Tensor],
    constants: Mapping[str, onnx.TensorProto],
) -> onnx.ModelProto | None:
    """The node alone, what carries a gradient as inputs, and the sum of its first output as the loss."""
    moving = [name for name in dict.fromkeys(gradient_inputs(node)) if name in carries]
    if any(name not in types and name not in constants for name in node.input if name) or not moving:
        return None
    total = helper.make_node("ReduceSum", [node.output[0]], ["probe.loss"], keepdims=0)
    inputs = [
        helper.make_tensor_value_info(name, types[name].elem_type, [d.dim_value for d in types[name].shape.dim])
        for name in dict.fromkeys(node.input)
        if name in types and name not in constants
    ]
    loss = helper.make_tensor_value_info("probe.loss", TensorProto.FLOAT, [])
    own = [constants[name] for name in dict.fromkeys(node.input) if name in constants]
    graph = helper.make_graph([node, total], "probe", inputs, [loss], own)
    model = helper.make_model(graph, opset_imports=list(made.forward.opset_import), ir_version=made.forward.ir_version)
    model = onnx.shape_inference.infer_shapes(model)
    try:
        built = build_gradient_graph(model, loss="probe.loss", weights=moving, outputs=[], engine=made.engine)
        return make_faster(built, block=0, engine=made.engine)
    except NotTrainableError:
        return None


def _run_probe(model: onnx.ModelProto) -> None:
    session = BoundSession(model, threads=1)
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
        array = generator.standard_normal(shapes[value.name])
        session.bind_input(value.name, array.astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    for output in model.graph.output:
        shape = next((shape for name, shape in shapes.items() if gradient_name(name) == output.name), ())
        session.bind_output(output.name, np.zeros(shape, np.float32))
    session.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
