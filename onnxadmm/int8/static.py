"""Static quantisation: ranges measured once, and models in which some operators keep their floats."""

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnx
from numpy.typing import NDArray

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.exact_integers import is_quantised
from onnxadmm.graph.model import Model, from_proto, to_proto
from onnxadmm.graph.shapes import infer
from onnxadmm.runtime.custom_ops import libraries_in_use
from onnxadmm.runtime.session import SessionOptions, open_inference

Feed = Mapping[str, NDArray[Any]]

#: What protobuf can hold, with room for what is added; onnxruntime's tools serialise the model several times.
LARGEST: Final = 1_500_000_000
#: Operators that stay as they are: rounded, they cost accuracy, and onnxruntime has nothing faster for them.
_LEFT_ALONE: Final = frozenset({"ArgMax", "Softmax", "LayerNormalization", "InstanceNormalization"})
#: The first version of ONNX whose QuantizeLinear takes one scale for each channel.
_OPSET: Final = 13


def load_tools() -> None:
    """Import onnxruntime's tools, which takes seconds, once in a process: who times what they do does so before."""
    import onnxruntime.quantization.calibrate
    import onnxruntime.quantization.qdq_quantizer
    import onnxruntime.quantization.registry
    import onnxruntime.quantization.shape_inference  # noqa: F401  # kept by the interpreter, and imported by name below


class Quantizer:
    """Quantises one model, again and again, with the ranges of its activations.

    Activations are unsigned bytes with a zero point, from the least to the largest value that was seen; weights are
    signed bytes, symmetric about zero, with a scale for each output channel.

    Args:
        model: in floats.
        batches: inputs its ranges are measured with, each a feed by input name.
        narrow: weights of 7 bits, for x86-64 processors without VNNI, which cut off sums of byte products.

    Attributes:
        nodes: names of the operators that can be quantised, in order.

    Raises:
        ModelFileError: onnxruntime's tools cannot take the model.
    """

    def __init__(self, model: Model, batches: Iterable[Feed], *, narrow: bool = False) -> None:
        from onnxruntime.quantization import registry

        if is_quantised(model):
            raise _refusal(model, "one that is in bytes already", "give the model in floats")
        if model.file_bytes > LARGEST:
            raise _refusal(model, f"{model.file_bytes:,} bytes", "quantise a model below 1.5 GB")
        self._model = model
        self._narrow = narrow
        known = {*registry.QDQRegistry, *registry.QLinearOpsRegistry}
        self._kinds = sorted(known - _LEFT_ALONE)
        with _quiet(), tempfile.TemporaryDirectory(prefix="onnxadmm-") as folder:
            try:
                self._proto = _prepared(_raised(to_proto(model), model), Path(folder))
                # The tools look for the ranges of a Softmax, whether it is quantised or not.
                self._ranges = _measured(self._proto, batches, sorted(known), Path(folder))
            except Exception as error:  # onnxruntime's tools raise what they meet
                raise _refusal(model, _first_line(error), "quantise it with other tools") from error
        kinds = set(self._kinds)
        self.nodes: Sequence[str] = tuple(node.name for node in self._proto.graph.node if node.op_type in kinds)
        if not self.nodes:
            raise _refusal(model, "no operator that it can", "leave it in floats")

    def quantized(self, floats: Collection[str] = ()) -> Model:
        """Return the model in bytes, but for the operators of some names.

        Raises:
            ModelFileError: onnxruntime's tools cannot take the model.
        """
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        with _quiet():
            try:
                tool = QDQQuantizer(
                    proto,
                    True,
                    self._narrow,
                    QuantType.QInt8,
                    QuantType.QUInt8,
                    self._ranges,
                    [],
                    sorted(floats),
                    self._kinds,
                    {},
                )
                tool.quantize_model()
            except Exception as error:  # see above
                raise _refusal(self._model, _first_line(error), "quantise it with other tools") from error
        made = from_proto(_with_description(tool.model.model, to_proto(self._model)))
        return replace(made, path=self._model.path)


def _raised(proto: onnx.ModelProto, model: Model) -> onnx.ModelProto:
    """The model with an opset that knows scales for each channel, and a name for every node."""
    version = next(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    if version < _OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, _OPSET)
        except Exception as error:  # the converter raises RuntimeError and what it meets
            raise _refusal(
                model, f"opset {version}, which cannot be raised: {_first_line(error)}", f"export it for opset {_OPSET}"
            ) from error
    taken = {node.name for node in proto.graph.node}
    for number, node in enumerate(proto.graph.node):
        if not node.name:
            name = f"{node.op_type}_{number}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
    return proto


def _prepared(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model with shapes inferred, and what onnxruntime fuses without changing the file's operators."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    given, prepared = folder / "given.onnx", folder / "prepared.onnx"
    onnx.save(proto, given)
    custom = bool(libraries_in_use())
    # The tool opens a session of its own, which knows no libraries.
    quant_pre_process(str(given), str(prepared), skip_optimization=custom, skip_symbolic_shape=True)
    made = onnx.shape_inference.infer_shapes(onnx.load(prepared))
    if custom:
        _state_types(made)
    return made


def _state_types(proto: onnx.ModelProto) -> None:
    """State of activations what ONNX cannot infer: the tools take no layer that reads one of unknown type."""
    known = infer(from_proto(proto))
    graph = proto.graph
    stated = {value.name for value in (*graph.value_info, *graph.output)}
    for name in (name for node in graph.node for name in node.output if name and name not in stated):
        dtype, shape, varies = known.dtype(name), known.shape(name), known.dynamic(name)
        if dtype is not None and shape is not None and varies is not None:
            lengths = [None if free else length for length, free in zip(shape, varies, strict=True)]
            graph.value_info.append(onnx.helper.make_tensor_value_info(name, dtype.value, lengths))


def _measured(proto: onnx.ModelProto, batches: Iterable[Feed], kinds: Sequence[str], folder: Path) -> Any:
    """The range of every activation over the batches."""
    from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._feeds = iter(batches)

        def get_next(self) -> Any:
            return next(self._feeds, None)

    class Calibrator(MinMaxCalibrater):  # type: ignore[misc]  # likewise
        def create_inference_session(self) -> None:
            self.infer_session = open_inference(
                Path(self.augmented_model_path), SessionOptions(threads=0, optimised=False)
            )

    floats = folder / "floats.onnx"
    onnx.save(proto, floats)
    calibrator = Calibrator(floats, list(kinds), augmented_model_path=str(folder / "augmented.onnx"))
    calibrator.augment_graph()
    calibrator.create_inference_session()
    calibrator.collect_data(Reader())
    return calibrator.compute_data()


def _with_description(made: onnx.ModelProto, given: onnx.ModelProto) -> onnx.ModelProto:
    """The quantised model with what was said of the given one, and without the marks of the tools."""
    made.doc_string = given.doc_string
    made.graph.doc_string = given.graph.doc_string
    made.graph.name = given.graph.name
    del made.metadata_props[:]
    made.metadata_props.extend(given.metadata_props)
    made.producer_name, made.producer_version = given.producer_name, given.producer_version
    used = {node.domain for node in made.graph.node} | {node.domain for each in made.functions for node in each.node}
    kept = [each for each in made.opset_import if each.domain in ("", "ai.onnx") or each.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools tell the root logger what they think of a model; nobody asked."""
    root, handler = logging.getLogger(), logging.NullHandler()
    before = logging.root.manager.disable
    # With a handler there, logging's functions do not make one of their own, which would stay.
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}".rstrip(": ")


def _refusal(model: Model, found: str, way_out: str) -> ModelFileError:
    name = model.path.name if model.path is not None else "the model"
    return ModelFileError(name, expected="a model that onnxruntime can quantise", found=found, way_out=way_out)
