"""What people do to exported files: quantise them, halve their floats, optimise them offline; and files of old tools.

Needs onnx and onnxruntime only. Run from the root of the repository, after the other exports:
``python -m tests.zoo.make_derived``.
"""

import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

FOLDER = Path(__file__).parent


class RandomReader(CalibrationDataReader):
    """Eight random batches of one for calibration."""

    def __init__(self, path: Path) -> None:
        generator = np.random.default_rng(0)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        shapes = {x.name: [d if isinstance(d, int) else 1 for d in x.shape] for x in session.get_inputs()}
        feeds = [
            {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
            for _ in range(8)
        ]
        self._feeds: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantised(source: str, *, layout: QuantFormat, per_channel: bool = True) -> Callable[[Path], None]:
    """8-bit weights and activations, calibrated on random inputs."""

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            ready = Path(folder) / "ready.onnx"
            quant_pre_process(str(FOLDER / source), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(path),
                RandomReader(ready),
                quant_format=layout,
                per_channel=per_channel,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8 if layout is QuantFormat.QOperator else QuantType.QInt8,
            )

    return make


def dynamic(source: str) -> Callable[[Path], None]:
    """8-bit weights, activations quantised as they come: DynamicQuantizeLinear, MatMulInteger, ConvInteger."""
    return lambda path: quantize_dynamic(str(FOLDER / source), str(path), weight_type=QuantType.QUInt8)


def halved(source: str, *, keep_io: bool) -> Callable[[Path], None]:
    """Float16 throughout, or with casts at float32 inputs and outputs."""

    def make(path: Path) -> None:
        model = onnx.shape_inference.infer_shapes(onnx.load(FOLDER / source))
        onnx.save(convert_float_to_float16(model, keep_io_types=keep_io), path)

    return make


def optimised(source: str) -> Callable[[Path], None]:
    """What onnxruntime writes at the extended level: com.microsoft operators."""

    def make(path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(str(FOLDER / source), options, providers=["CPUExecutionProvider"])

    return make


def listed(source: str) -> Callable[[Path], None]:
    """Every initializer is also an input of the graph, as before IR version 4."""

    def make(path: Path) -> None:
        model = onnx.load(FOLDER / source)
        for tensor in model.graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        onnx.save(model, path)

    return make


def _weight(generator: np.random.Generator, name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)


def opset7(path: Path) -> None:
    """An opset-7 file as the first exporters wrote them: IR 3, initializers listed, fixed batch.

    Broadcasting Add for biases, BatchNormalization with ``spatial``, Upsample with ``scales`` as an attribute, Dropout
    in the graph, Reshape by an initializer, Gemm with three operands.
    """
    generator = np.random.default_rng(0)
    weights = [
        _weight(generator, "w1", 8, 3, 3, 3),
        _weight(generator, "b1", 8, 1, 1),
        *(_weight(generator, name, 8) for name in ("scale", "shift", "mean")),
        numpy_helper.from_array(generator.uniform(0.5, 1.5, 8).astype(np.float32), "variance"),
        _weight(generator, "w2", 12, 8, 3, 3),
        _weight(generator, "b2", 12),
        _weight(generator, "slope", 12, 1, 1),
        _weight(generator, "w3", 12 * 16, 24),
        _weight(generator, "b3", 24),
        _weight(generator, "w4", 10, 24),
        _weight(generator, "b4", 10),
        numpy_helper.from_array(np.array([1, -1], np.int64), "flat"),
    ]
    make = helper.make_node
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        make("Conv", ["x", "w1"], ["c1"], **pads),
        make("Add", ["c1", "b1"], ["a1"]),
        make("BatchNormalization", ["a1", "scale", "shift", "mean", "variance"], ["n1"], spatial=1, epsilon=1e-5),
        make("Relu", ["n1"], ["r1"]),
        make("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["p1", "w2", "b2"], ["c2"], **pads),
        make("PRelu", ["c2", "slope"], ["r2"]),
        make("Upsample", ["r2"], ["u2"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest"),
        make("AveragePool", ["u2"], ["p2"], kernel_shape=[4, 4], strides=[4, 4]),
        make("Reshape", ["p2", "flat"], ["f"]),
        make("Dropout", ["f"], ["d"], ratio=0.5),
        make("Gemm", ["d", "w3", "b3"], ["g1"]),
        make("Relu", ["g1"], ["r3"]),
        make("Gemm", ["r3", "w4", "b4"], ["g2"], transB=1),
        make("Softmax", ["g2"], ["y"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])]
    inputs += [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in weights]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])]
    graph = helper.make_graph(nodes, "old", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)], ir_version=3), path)


def opset8(path: Path) -> None:
    """Sum and Max of three branches with auto_pad, Squeeze with axes as an attribute, MatMul and Add."""
    generator = np.random.default_rng(1)
    weights = [_weight(generator, f"w{number}", 10, 4, size, size) for number, size in enumerate((1, 3, 5))]
    weights += [_weight(generator, "wm", 10, 16), _weight(generator, "bm", 16), _weight(generator, "wo", 16, 3)]
    make = helper.make_node
    nodes = [
        make("Conv", ["x", f"w{n}"], [f"c{n}"], kernel_shape=[size] * 2, auto_pad="SAME_UPPER")
        for n, size in enumerate((1, 3, 5))
    ]
    nodes += [
        make("Sum", ["c0", "c1", "c2"], ["s"]),
        make("Max", ["s", "c0"], ["m"]),
        make("GlobalAveragePool", ["m"], ["p"]),
        make("Squeeze", ["p"], ["q"], axes=[2, 3]),
        make("MatMul", ["q", "wm"], ["h"]),
        make("Add", ["h", "bm"], ["hb"]),
        make("Tanh", ["hb"], ["t"]),
        make("MatMul", ["t", "wo"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])]
    graph = helper.make_graph(nodes, "old", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4), path)


def opset9(path: Path) -> None:
    """Weights made in the graph by ConstantOfShape, scalars by Constant, as weightless test files carry them."""
    generator = np.random.default_rng(2)
    weights = [_weight(generator, "w1", 12, 3, 3, 3), _weight(generator, "w3", 10, 3)]
    shapes = {"filled": [10, 12, 1, 1], "zeros": [10]}
    make = helper.make_node
    nodes = [
        make("Constant", [], [f"{name}_shape"], value=numpy_helper.from_array(np.array(shape, np.int64)))
        for name, shape in shapes.items()
    ]
    nodes += [
        make(
            "ConstantOfShape", ["filled_shape"], ["filled"], value=numpy_helper.from_array(np.full(1, 0.25, np.float32))
        ),
        make("ConstantOfShape", ["zeros_shape"], ["zeros"]),
        make("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, np.float32))),
        make("Conv", ["x", "w1"], ["c1"], kernel_shape=[3, 3], strides=[2, 2]),
        make("Mul", ["c1", "half"], ["m1"]),
        make("LeakyRelu", ["m1"], ["r1"], alpha=0.1),
        make("Conv", ["r1", "filled", "zeros"], ["c2"], kernel_shape=[1, 1]),
        make("Relu", ["c2"], ["r2"]),
        make("ReduceMean", ["r2"], ["p"], axes=[2, 3], keepdims=0),
        make("MatMul", ["p", "w3"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 12, 12])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])]
    graph = helper.make_graph(nodes, "old", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4), path)


def main() -> int:
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(4)
    qdq, integer = QuantFormat.QDQ, QuantFormat.QOperator
    jobs: dict[str, Callable[[Path], None]] = {
        "qdq_resnet": quantised("torch_script_resnet_basic.onnx", layout=qdq),
        "qdq_lenet": quantised("torch_dynamo_lenet.onnx", layout=qdq),
        "qdq_mobilenet_v2": quantised("torch_script_mobilenet_v2.onnx", layout=qdq),
        "qdq_mlp": quantised("torch_dynamo_mlp_autoencoder.onnx", layout=qdq),
        "qdq_mlp_per_tensor": quantised("torch_script_mlp.onnx", layout=qdq, per_channel=False),
        "qdq_vit": quantised("torch_script_vit.onnx", layout=qdq),
        "qoperator_resnet": quantised("torch_script_resnet_basic.onnx", layout=integer),
        "qoperator_vgg": quantised("torch_script_vgg.onnx", layout=integer, per_channel=False),
        "qoperator_mlp": quantised("torch_script_mlp.onnx", layout=integer),
        "dynamic_mlp": dynamic("torch_script_mlp_autoencoder.onnx"),
        "dynamic_lenet": dynamic("torch_script_lenet.onnx"),
        "dynamic_bert": dynamic("torch_script_bert.onnx"),
        "float16_resnet": halved("torch_script_resnet_basic.onnx", keep_io=False),
        "float16_mobilenet_v3": halved("torch_dynamo_mobilenet_v3.onnx", keep_io=True),
        "float16_bert": halved("torch_script_bert.onnx", keep_io=True),
        "float16_mlp": halved("torch_dynamo_mlp.onnx", keep_io=False),
        "optimised_resnet": optimised("torch_script_resnet_basic.onnx"),
        "optimised_resnet_preactivation": optimised("torch_dynamo_resnet_preactivation.onnx"),
        "optimised_mobilenet_v3": optimised("torch_script_mobilenet_v3.onnx"),
        "optimised_bert": optimised("torch_script_bert.onnx"),
        "optimised_bert_opset12": optimised("torch_script_bert_opset12.onnx"),
        "optimised_vit": optimised("torch_dynamo_vit.onnx"),
        "optimised_gpt": optimised("torch_script_gpt.onnx"),
        "optimised_convnext": optimised("torch_script_convnext.onnx"),
        "listed_vgg_opset11": listed("torch_script_vgg_opset11.onnx"),
        "listed_resnet_opset9": listed("torch_script_resnet_opset9.onnx"),
        "handmade_opset7": opset7,
        "handmade_opset8": opset8,
        "handmade_opset9": opset9,
    }
    failures = 0
    for name, make in jobs.items():
        path = FOLDER / f"{'' if name.startswith('handmade') else 'ort_' if 'listed' not in name else ''}{name}.onnx"
        try:
            make(path)
            print(f"{path.stem}: {path.stat().st_size} bytes", flush=True)
        except Exception as error:  # one refusal must not stop the others
            failures += 1
            print(f"{path.stem}: {type(error).__name__}: {str(error).strip().splitlines()[-1:]}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
