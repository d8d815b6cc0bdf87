"""This room's door to onnxruntime: a model that runs node by node, as it is written."""

import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import InputError, ModelFileError
from onnxadmm.graph.model import Model, save, to_proto

Array = NDArray[Any]

# A protobuf message ends at 2 GiB; beyond that the model goes through a file with external data.
_PROTOBUF_BYTES: Final = 2**31 - 2**20
# onnxruntime's log level "fatal": what goes wrong is raised, and need not be on stderr as well.
_LOG_FATAL: Final = 4
_NEWER_IR: Final = "max supported IR version: "


class Runner:
    """A model loaded with every graph optimisation switched off.

    Optimisations fuse by pattern and choose layouts by channel count, so two equal networks of different widths
    would take different kernels, and round differently for reasons that say nothing about the networks.

    Args:
        model: the model; it is not changed.
        threads: threads one operator may use, at least 1.

    Raises:
        ModelFileError: onnxruntime cannot load it.
        InputError: the module onnxruntime is missing or broken.
    """

    def __init__(self, model: Model, *, threads: int) -> None:
        self._name = str(model.path) if model.path is not None else (model.ir.graph.name or "the model")
        try:
            runtime = import_module("onnxruntime")
        except (ImportError, OSError) as error:
            raise InputError(
                "onnxruntime",
                expected="a module that imports",
                found=str(error),
                way_out="run `onnxadmm doctor` to see which packages provide it",
            ) from error
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_FATAL
        try:
            self._session = _load(runtime, options, model)
        except Exception as error:
            # onnxruntime's errors have no common root below Exception.
            raise self._refusal("a model onnxruntime can load", error) from error
        self.outputs: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    def run(self, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once and return the named outputs, or all of them: arrays, or lists and dicts of such.

        Raises:
            ModelFileError: onnxruntime refuses the inputs or fails inside the model.
        """
        wanted = list(self.outputs if names is None else names)
        try:
            return dict(zip(wanted, self._session.run(wanted, dict(feed)), strict=True)) if wanted else {}
        except Exception as error:
            shapes = ", ".join(f"{name} {list(np.shape(array))}" for name, array in feed.items())
            raise self._refusal(f"a model that runs with {shapes}", error) from error

    def _refusal(self, expected: str, error: Exception) -> ModelFileError:
        found = " ".join(str(error).split())[:400].rstrip(". ")
        return ModelFileError(self._name, expected=expected, found=found, way_out="check it in onnxruntime by itself")


def _load(runtime: Any, options: Any, model: Model) -> Any:
    providers = ["CPUExecutionProvider"]
    if model.file_bytes >= _PROTOBUF_BYTES:
        with tempfile.TemporaryDirectory(prefix="onnxadmm-") as folder:
            path = Path(folder) / "model.onnx"
            save(model, path)
            return runtime.InferenceSession(str(path), options, providers=providers)
    proto = to_proto(model)
    try:
        return runtime.InferenceSession(proto.SerializeToString(), options, providers=providers)
    except Exception as error:
        # The stamp says which features of the format the writer knew; whether the model needs them shows on loading.
        newest = str(error).partition(_NEWER_IR)[2][:3].strip(" .,\n")
        if not newest.isdigit():
            raise
        proto.ir_version = int(newest)
        return runtime.InferenceSession(proto.SerializeToString(), options, providers=providers)
