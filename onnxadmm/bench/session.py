"""The one door of this room to onnxruntime's inference: a model that runs, or one sentence why it does not."""

import re
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import InputError, ModelFileError
from onnxadmm.graph.model import Model, clone, save, to_proto

Array = NDArray[Any]

# A protobuf message ends at 2 GiB; beyond that the model goes through a file with external data.
_PROTOBUF_BYTES: Final = 2**31 - 2**20
# onnxruntime's log level "fatal": what goes wrong is raised, and need not be on stderr as well.
_LOG_FATAL: Final = 4
_IR_LIMIT: Final = re.compile(r"max supported IR version: (\d+)")
_OPSET_LIMIT: Final = re.compile(
    r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)", re.S
)


class Session:
    """A model loaded for inference on the CPU.

    Attributes:
        name: how messages call the model.
        inputs: names of the inputs that must be fed.
        outputs: names of the outputs, in the model's order.
        threads: threads one operator may use; operators run one after the other.
    """

    def __init__(self, runtime_session: Any, *, name: str, threads: int) -> None:
        self._session = runtime_session
        self.name = name
        self.threads = threads
        self.inputs: tuple[str, ...] = tuple(argument.name for argument in runtime_session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(argument.name for argument in runtime_session.get_outputs())

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once.

        Args:
            feed: one array per name in ``inputs``.

        Returns:
            One array per name in ``outputs``.

        Raises:
            ModelFileError: onnxruntime refuses the inputs or fails inside the model.
        """
        try:
            results = self._session.run(list(self.outputs), dict(feed))
        except Exception as error:
            # onnxruntime's errors have no common root below Exception.
            shapes = ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in feed.items())
            raise ModelFileError(
                self.name,
                expected=f"a model that runs with {shapes}",
                found=_sentence(error),
                way_out="check the model's input shapes, or try another batch size",
            ) from error
        return {name: np.asarray(result) for name, result in zip(self.outputs, results, strict=True)}


def open_session(model: Model, *, threads: int = 1) -> Session:
    """Load a model for inference on the CPU, with all graph optimisations.

    A model stamped with a newer IR version than onnxruntime reads is restamped on the way in: the stamp says which
    features of the format a writer knew, and onnxruntime still refuses those it does not know by itself.

    Args:
        model: the model; it is not changed.
        threads: threads one operator may use, at least 1.

    Raises:
        ModelFileError: onnxruntime cannot load the model, e.g. because its opset is newer than the runtime.
        InputError: the module onnxruntime is missing or broken, or ``threads`` is not positive.
    """
    runtime = import_runtime()
    name = _name(model)
    if threads < 1:
        raise InputError("threads", expected="at least 1", found=str(threads), way_out="give a positive number")
    try:
        loaded = _load(runtime, model, threads=threads)
    except Exception as error:
        limit = _IR_LIMIT.search(str(error))
        if limit is None:
            raise _refusal(name, error) from error
        restamped = clone(model)
        restamped.ir.ir_version = int(limit.group(1))
        try:
            loaded = _load(runtime, restamped, threads=threads)
        except Exception as second:
            raise _refusal(name, second) from second
    return Session(loaded, name=name, threads=threads)


def import_runtime() -> Any:
    """Import onnxruntime late, so that a broken install can still be diagnosed.

    Raises:
        InputError: it is missing or broken.
    """
    try:
        runtime = import_module("onnxruntime")
        # Two providers that overwrote each other can leave a package that imports and holds nothing.
        runtime.InferenceSession  # noqa: B018
    except (ImportError, AttributeError, OSError) as error:
        raise InputError(
            "onnxruntime",
            expected="a module that imports",
            found=_sentence(error),
            way_out="run `onnxadmm doctor` to see which packages provide it",
        ) from error
    return runtime


def _load(runtime: Any, model: Model, *, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_FATAL
    # Idle threads of one session would spin through the other session's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    if model.file_bytes < _PROTOBUF_BYTES:
        return runtime.InferenceSession(to_proto(model).SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="onnxadmm-") as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        return runtime.InferenceSession(str(path), options, providers=providers)


def _refusal(name: str, error: Exception) -> ModelFileError:
    opset = _OPSET_LIMIT.search(str(error))
    if opset is not None:
        return ModelFileError(
            name,
            expected=f"opset {opset.group(3)} or older of {opset.group(2)}, the newest this onnxruntime runs",
            found=f"opset {opset.group(1)}",
            way_out="export the model with an older opset, or use a newer onnxruntime",
        )
    return ModelFileError(
        name,
        expected="a model onnxruntime can load",
        found=_sentence(error),
        way_out="check that it loads in onnxruntime by itself; operators of custom domains need their own library",
    )


def _name(model: Model) -> str:
    return str(model.path) if model.path is not None else (model.ir.graph.name or "the model")


def _sentence(error: BaseException) -> str:
    """The useful part of an onnxruntime message, on one line: without error code, C++ signature and closing advice."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ [^()]*\([^()]*\)(?: const)? ", "", text)
    text = text.removesuffix("Please fix either the inputs/outputs or the model.")
    return text[:300].rstrip(". ")
