"""The one door to the engines that train: which there are, gradient graphs, and sessions bound to numpy memory.

There are two. The training wheels of onnxruntime carry a gradient builder and backward kernels inside the module
``onnxruntime`` itself, so nothing of the package ``onnxruntime.training`` (which imports torch) is needed. Where they
are not installed, gradients are written by this package in operators that any onnxruntime runs. Either way the result
is an ordinary ONNX graph, an ordinary session runs it, and weights, gradients and logits are numpy arrays bound as its
inputs and outputs, which it reads and writes without copies.
"""

import importlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxadmm.errors import InputError, NotTrainableError, OptionError, TrainingUnavailableError
from onnxadmm.runtime.session import (
    LOG_ERROR,
    SessionOptions,
    Spinning,
    failures,
    import_runtime,
    open_inference,
    session_options,
)

AnyArray = NDArray[Any]

#: Who differentiates: the training build of onnxruntime, or this package for any onnxruntime.
Engine = Literal["training", "plain"]
#: What a user asks for; ``"auto"`` is the training build where it is installed, else any.
EngineChoice = Literal["auto", "training", "plain"]
#: What products of matrices are computed in while a network trains; all else is float32 with both.
Precision = Literal["float32", "bf16"]

#: Newest IR version and opset the last training release (1.19.2) reads.
IR_VERSION = 10
OPSET = 21

PROVIDERS = ("onnxruntime-training-cpu", "onnxruntime-training", "onnxruntime", "onnxruntime-gpu")
REQUIREMENT = (
    "onnxruntime-training-cpu 1.19.2 (wheels for CPython 3.9 to 3.12 on Linux x86-64, macOS and Windows) "
    "as the only provider of the module onnxruntime"
)


def providers(
    version_of: Callable[[str], str] = importlib.metadata.version,
) -> dict[str, str]:
    """Installed distributions that own the module ``onnxruntime``, with their versions, in a fixed order."""
    found: dict[str, str] = {}
    for name in PROVIDERS:
        try:
            found[name] = version_of(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def unavailable_reason(installed: Mapping[str, str] | None = None, *, engine: EngineChoice = "auto") -> str | None:
    """Why training does not work here, in a few words, or None when it does.

    Args:
        installed: what ``providers()`` returned; looked up when omitted.
        engine: which one is asked for.
    """
    owners = providers() if installed is None else installed
    listing = ", ".join(f"{name} {version}" for name, version in owners.items())
    if len(owners) > 1:
        return f"{len(owners)} distributions that overwrite each other's module onnxruntime ({listing})"
    if not owners:
        return "no onnxruntime at all"
    if engine == "training" and not _is_training_build(owners):
        return f"{listing} without the training API, on CPython {platform.python_version()} ({platform.machine()})"
    try:
        if engine == "training":
            _native()
        else:
            import_runtime()
    except (ImportError, InputError) as error:
        return f"{listing}, which fails to import ({error})"
    return None


def _is_training_build(owners: Mapping[str, str]) -> bool:
    return next(iter(owners), "") in ("onnxruntime-training-cpu", "onnxruntime-training")


def choose_engine(choice: EngineChoice = "auto") -> Engine:
    """The engine that trains here.

    Raises:
        TrainingUnavailableError: the one that was asked for does not work here, or none does.
    """
    training = unavailable_reason(engine="training")
    if training is None and choice != "plain":
        return "training"
    reason = training if choice == "training" else unavailable_reason(engine="plain")
    if reason is None:
        return "plain"
    if choice == "training":
        raise TrainingUnavailableError(
            "training",
            expected=REQUIREMENT,
            found=reason,
            way_out="train with --engine plain, or uninstall every onnxruntime distribution and install "
            "onnxruntime-training-cpu==1.19.2 under Python 3.11 or 3.12",
        )
    raise TrainingUnavailableError(
        "training",
        expected="one onnxruntime distribution that imports",
        found=reason,
        way_out="uninstall every onnxruntime distribution, then install onnxruntime (or, under Python 3.11 or 3.12, "
        "onnxruntime-training-cpu==1.19.2)",
    )


def _native() -> ModuleType:
    import_runtime()
    native = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    if not hasattr(native, "GradientGraphBuilder"):
        raise ImportError("no GradientGraphBuilder in the module onnxruntime")
    return native


def _reason(error: Exception) -> str:
    """The words of a failed check, without the C++ signature and the condition that stand before them."""
    text = str(error).rpartition("was false.")[2].rpartition("&) ")[2]
    return " ".join(text.split())[:400].rstrip(".") or "one that it refuses without a reason"


def differentiate(forward: bytes, *, loss: str, weights: Sequence[str]) -> bytes:
    """Append the backward pass of ``loss`` to a serialized forward graph, with the engine's gradient builder.

    Raises:
        TrainingUnavailableError: the installed onnxruntime has no training API.
        NotTrainableError: the builder cannot differentiate the graph.
    """
    choose_engine("training")
    try:
        builder = _native().GradientGraphBuilder(forward, {loss}, set(weights), loss, session_options(SessionOptions()))
        builder.build()
    except failures() as error:
        raise NotTrainableError(
            f"gradient of {loss}",
            expected="a graph the training engine can differentiate",
            found=_reason(error),
            way_out="freeze the weight or replace the operator it names",
        ) from error
    return bytes(builder.get_model())


def register_stand_in(name: str, *, results: int, operands: Sequence[int]) -> None:
    """Let the gradient builder differentiate the node ``ATen`` with ``operator=name``.

    Its gradient is the node ``ATen`` with ``operator=name/gradient``, which reads the gradients of its results and puts
    out those of some operands.
    """
    native = _native()
    texts = {"operator": f"{name}/gradient", "overload_name": ""}
    attributes = []
    for key, text in texts.items():
        item = native.GradientNodeAttributeDefinition()
        item.name, item.value_json, item.dtype, item.is_tensor = key, json.dumps(text), "string", False
        attributes.append(item)
    node = native.GradientNodeDefinition()
    node.op_type, node.domain = "ATen", "org.pytorch.aten"
    node.inputs = [f"GO({index})" for index in range(results)]
    node.outputs = [f"GI({index})" for index in operands]
    node.attributes = attributes
    native.register_gradient_definition(f"org.pytorch.aten::ATen::{name}::", [node])


def inference_session(
    model: onnx.ModelProto | bytes, *, threads: int, spinning: bool = True, precision: Precision = "float32"
) -> Any:
    """Open a CPU session for a training, of the installed onnxruntime.

    Args:
        model: a model below 2 GB.
        threads: intra-op threads; 0 leaves the choice to onnxruntime.
        spinning: whether its threads wait for work by turning in circles, which takes cores from other processes.
        precision: of its products of matrices.

    Raises:
        SessionError: onnxruntime does not load the model.
    """
    waiting = Spinning.ALWAYS if spinning else Spinning.NEVER
    return open_inference(
        model,
        SessionOptions(
            threads,
            spinning=waiting,
            # A pattern is recorded in the first run and laid out as one block beside it: twice the memory, no time won.
            memory_pattern=False,
            # Each gradient follows what it is made from: a third to a half less memory than from the outputs upwards.
            in_order=True,
            bfloat16=precision == "bf16",
        ),
    )


def check_precision(precision: Precision) -> None:
    """Refuse a precision that this onnxruntime does not compute in on this CPU.

    Raises:
        OptionError: it does not.
    """
    if precision == "bf16" and not multiplies_in_bfloat16():
        listing = ", ".join(f"{name} {version}" for name, version in providers().items()) or "no onnxruntime"
        raise OptionError(
            "--precision",
            expected="for bf16 an onnxruntime that multiplies in bfloat16 here, as on Linux on ARM with BF16",
            found=f"{listing} on {platform.machine()}, whose products are float32",
            way_out="leave it at float32",
        )


def multiplies_in_bfloat16() -> bool:
    """Whether products of float32 matrices can be computed in bfloat16 here, found by computing one in both ways."""
    shape, kind = (128, 128), onnx.TensorProto.FLOAT  # smaller products stay float32
    values = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    a, b, product = (helper.make_tensor_value_info(name, kind, shape) for name in ("a", "b", "product"))
    nodes = [helper.make_node("MatMul", ["a", "b"], ["product"])]
    graph = helper.make_graph(nodes, "product", [a, b], [product])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    ways: tuple[Precision, ...] = ("float32", "bf16")
    feed = dict(zip(("a", "b"), values, strict=True))
    exact, low = (inference_session(model, threads=1, precision=way).run(None, feed)[0] for way in ways)
    return not np.array_equal(exact, low)


class BoundSession:
    """A session whose inputs and outputs are numpy arrays in place.

    Bound arrays are held here as long as they are bound, so their memory outlives every run.
    """

    def __init__(
        self, model: onnx.ModelProto | bytes, *, threads: int, spinning: bool = True, precision: Precision = "float32"
    ) -> None:
        runtime = import_runtime()
        self._session = inference_session(model, threads=threads, spinning=spinning, precision=precision)
        self._binding = self._session.io_binding()
        self._run_options = runtime.RunOptions()
        self._run_options.log_severity_level = LOG_ERROR
        self._held: dict[str, AnyArray] = {}

    def bind_input(self, name: str, array: AnyArray) -> None:
        """Let the engine read ``array`` (C-contiguous, the dtype and shape of the input) as input ``name``."""
        self._held[name] = array
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def bind_output(self, name: str, array: AnyArray) -> None:
        """Let the engine write output ``name`` into ``array`` (C-contiguous, writable, of its dtype and shape)."""
        self._held[name] = array
        self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self) -> None:
        """Read every bound input, overwrite every bound output."""
        self._session.run_with_iobinding(self._binding, self._run_options)

    def close(self) -> None:
        """Free the session and let go of all bound arrays."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._held.clear()
        del self._binding, self._session
