"""Shapes behind custom operators, which nobody can infer: the model runs up to them, with their library registered."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.model import Model, load
from onnxadmm.graph.part import up_to
from onnxadmm.graph.runtime import Session, open_session
from onnxadmm.runtime.custom_ops import libraries_in_use
from onnxadmm.runtime.session import OWN_DOMAINS

#: Types of a tensor at the two samples of the free dimensions; None where it is no tensor or nothing is known.
Types = tuple[onnx.TypeProto | None, onnx.TypeProto | None]
Observed = Mapping[str, Types]
NOTHING: Observed = MappingProxyType({})

# Inputs above this many elements are not made up: the model would be run on hundreds of megabytes.
_MOST_ELEMENTS = 2**26


def is_opaque(node: onnx_ir.Node) -> bool:
    """Whether a node may be or hold a custom operator: it has a domain or bodies, or ONNX has no such operator."""
    return has_bodies(node) or node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type)


def has_bodies(node: onnx_ir.Node) -> bool:
    """Whether a node has graphs of its own, as If, Loop and Scan have."""
    return any(
        attribute.type in (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)
        for attribute in node.attributes.values()
    )


def is_custom(node: onnx_ir.Node) -> bool:
    """Whether a node calls what neither ONNX nor onnxruntime has, functions of the model aside."""
    return node.domain not in OWN_DOMAINS or (node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type))


def has_custom_operators(model: Model) -> bool:
    """Whether a node, at any depth, calls a custom operator."""
    functions = model.ir.functions
    return any(is_custom(node) and node.op_identifier() not in functions for node in model.ir.graph.all_nodes())


def remedy(value: onnx_ir.Value) -> str:
    """The end of a sentence on the unknown shape of a value: what would show it, where anything would."""
    node = value.producer()
    if node is None or not is_custom(node) or libraries_in_use():
        return ""
    return f", --custom-ops with the library of {node.op_type} would show it"


class Probe:
    """Runs a model up to some tensors, to see what shape they have.

    Does nothing unless custom-operator libraries are in use: without them onnxruntime would refuse the model, and where
    there is no custom operator inference needs no help.

    Args:
        model: left as it is.

    Attributes:
        runs: how often it was run, at two samples each time.
    """

    def __init__(self, model: Model | onnx.ModelProto) -> None:
        self._model = model
        self.runs = 0
        self._sessions: dict[frozenset[str], Session | None] = {}

    def observe(self, names: Collection[str], inputs: Mapping[str, Types]) -> Observed | None:
        """Return the types of tensors of the main graph.

        Args:
            names: of the tensors.
            inputs: types of the inputs at both samples, every length known.

        Returns:
            Those that are tensors; None where the model runs, and not at these lengths, so that others may do.
        """
        if not names or not libraries_in_use():
            return NOTHING
        session = self._session(frozenset(names))
        if session is None or any(None in inputs.get(name, (None,)) for name in session.inputs):
            return NOTHING
        self.runs += 1
        try:
            runs = [
                session.run({name: _filled(inputs[name][number]) for name in session.inputs}, sorted(names))
                for number in (0, 1)
            ]
        except LookupError:
            return NOTHING
        except ModelFileError:
            return None
        observed = {}
        for name in names:
            first, second = (run[name] for run in runs)
            if isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and first.dtype != np.object_:
                observed[name] = (_type_of(first), _type_of(second))
        return observed

    def _session(self, names: frozenset[str]) -> Session | None:
        if names not in self._sessions:
            try:
                self._sessions[names] = open_session(up_to(load(self._model), names), as_written=True)
            except ModelFileError:
                self._sessions[names] = None  # whoever runs the model for its results says why it does not load
        return self._sessions[names]


def _filled(given: onnx.TypeProto | None) -> NDArray[np.generic]:
    """An array of a type: ones, which are valid indices into whatever has two entries and pass through any function.

    Raises:
        LookupError: a length is not known, or the array would be too large.
    """
    if given is None or not given.HasField("tensor_type"):
        raise LookupError("no tensor")
    dims = given.tensor_type.shape.dim
    lengths = [dim.dim_value for dim in dims if dim.HasField("dim_value")]
    if len(lengths) != len(dims) or np.prod(lengths, dtype=float) > _MOST_ELEMENTS:
        raise LookupError("no array of this type")
    return np.ones(lengths, onnx.helper.tensor_dtype_to_np_dtype(given.tensor_type.elem_type))


def _type_of(array: NDArray[np.generic]) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(onnx_ir.DataType.from_numpy(array.dtype).value, array.shape)
