"""Weights by name, for whoever trains elsewhere: out as arrays, and back again."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.errors import OptionError
from onnxadmm.graph.constants import FLOATS, constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model, Source, load

Array = NDArray[Any]


def weights(model: Source) -> dict[str, Array]:
    """Return the float constants of a model that are no single numbers, by name: what may have been trained.

    Args:
        model: path or model.

    Returns:
        Copies, of the shapes and dtypes that the file has, in its order: initializers, then results of ``Constant``
        nodes. Those inside of subgraphs and functions are not among them.

    Raises:
        ModelFileError: the file is not a readable ONNX model.

    Examples:
        ```python
        print({name: array.shape for name, array in oa.weights("model.onnx").items()})
        ```
    """
    found = {}
    for name, value in constants_by_name(load(model)).items():
        array = constant(value)
        if array is not None and array.ndim and _dtype(array) in FLOATS:
            found[name] = np.array(array)
    return found


def with_weights(model: Source, values: Mapping[str, object]) -> Model:
    """Return a copy of a model that has other values in some of its constants.

    Nothing else changes, so plans that were made for the model hold for the copy: ``shrink``, ``mask`` and ``verify``
    take it in its place, until it is saved.

    Args:
        model: path or model.
        values: arrays by name of the constant, or what numpy makes arrays of (tensors of PyTorch that need no gradient
            among them); of the shapes and dtypes that the model has, and finite.

    Returns:
        The copy; arrays are copied into it, all that did not change is shared.

    Raises:
        OptionError: there is no constant of a name, or an array has another shape or dtype, or NaN or infinity in it.
        ModelFileError: the file is not a readable ONNX model.

    Examples:
        ```python
        plan = oa.rank("model.onnx", oa.Budget(params=0.5))
        arrays = oa.weights(oa.mask("model.onnx", plan))  # train them, those that are zero held
        small = oa.shrink(oa.with_weights("model.onnx", arrays), plan)
        ```
    """
    loaded = load(model)
    known = constants_by_name(loaded)
    return with_constants(loaded, {name: _checked(name, value, known) for name, value in values.items()})


def _checked(name: str, value: object, known: Mapping[str, onnx_ir.Value]) -> Array:
    """An array for a constant.

    Raises:
        OptionError: there is none of this name, or the array cannot take its place.
    """
    present = constant(known[name]) if name in known else None
    if present is None:
        near = get_close_matches(str(name), known, n=3)
        raise OptionError(
            f"weight {name!r}",
            expected="the name of a constant of the model",
            found="none of this name",
            way_out=f"did you mean {' or '.join(near)}" if near else "see the names that onnxadmm.weights(model) has",
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"weight {name!r}",
            expected="an array",
            found=f"a {type(value).__name__} ({str(error)[:100]})",
            way_out="make it a numpy array; tensors of PyTorch by .detach().numpy()",
        ) from error
    if array.shape != present.shape or array.dtype != present.dtype:
        raise OptionError(
            f"weight {name!r}",
            expected=f"{present.dtype} of shape {list(present.shape)}",
            found=f"{array.dtype} of shape {list(array.shape)}",
            way_out="give it as the model has it",
        )
    if _dtype(array) in FLOATS and not np.isfinite(array).all():
        raise OptionError(
            f"weight {name!r}",
            expected="finite numbers",
            found="NaN or infinity",
            way_out="train again with a lower learning rate",
        )
    return array


def _dtype(array: Array) -> onnx_ir.DataType:
    return onnx_ir.DataType.STRING if array.dtype == np.object_ else onnx_ir.DataType.from_numpy(array.dtype)
