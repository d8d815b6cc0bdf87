"""Sizes that the file leaves free, stated by the user or by the data: what a model is counted, proven and timed at."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir

from onnxadmm.errors import OptionError
from onnxadmm.graph.model import Model

_OPTION = "--input-shape"


def with_input_shapes(model: Model, shapes: Mapping[str, Sequence[int]]) -> Model:
    """Return the model with the shapes of some of its inputs stated; the model itself where none are given.

    A free axis 0 is the batch, whose length says nothing here. Inputs that are not given keep what was stated of them.

    Args:
        shapes: whole shapes by input, axis 0 included.

    Raises:
        OptionError: there is no such input, or the shape contradicts the file, itself or another one.
    """
    if not shapes:
        return model
    inputs = {value.name or "": value for value in _fed(model)}
    lengths: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise OptionError(
                _OPTION,
                expected=f"an input of the model, one of {', '.join(inputs)}",
                found=repr(name),
                way_out="check the spelling",
            )
        _refuse(name, inputs[name], shape, lengths)
    stated = {name: tuple(int(length) for length in shape) for name, shape in shapes.items()}
    return replace(model, input_shapes={**model.input_shapes, **stated})


def leaves_sizes_open(model: Model) -> bool:
    """Tell whether some axis of an input, other than axis 0, is free and of no stated length."""
    return any(
        value.name not in model.input_shapes and any(not isinstance(dim, int) for dim in tuple(value.shape or ())[1:])
        for value in _fed(model)
    )


def with_samples(model: Model, shapes: Mapping[str, Sequence[int]]) -> Model:
    """Return the model with what samples of the data are like as its stated shapes; what is stated already stays.

    Args:
        shapes: of one sample by input, without the batch; those that contradict the file are passed over.
    """
    for value in _fed(model):
        name = value.name or ""
        if name in shapes and name not in model.input_shapes and value.shape is not None:
            try:
                model = with_input_shapes(model, {name: (1, *shapes[name])})
            except OptionError:  # data that do not fit are refused elsewhere, with a reason
                continue
    return model


def in_words(sizes: Mapping[str, Sequence[int]]) -> str:
    """Write shapes as the command line takes them: ``x:1,3,48,320``."""
    return " ".join(f"{name}:{','.join(map(str, shape))}" for name, shape in sizes.items())


def _fed(model: Model) -> list[onnx_ir.Value]:
    return [value for value in model.ir.graph.inputs if not value.is_initializer()]


def _refuse(name: str, value: onnx_ir.Value, shape: Sequence[int], lengths: dict[str, tuple[int, str]]) -> None:
    """Raise where a shape cannot be that of an input; ``lengths`` holds what symbols are so far, and of which."""
    given = f"{name}:{','.join(map(str, shape))}"
    if any(length < 1 for length in shape):
        raise OptionError(_OPTION, expected="lengths of at least 1", found=given, way_out="write e.g. x:1,3,48,320")
    dims = None if value.shape is None else tuple(value.shape)
    if dims is not None and len(dims) != len(shape):
        raise OptionError(
            _OPTION,
            expected=f"{len(dims)} lengths for input {name}",
            found=given,
            way_out="give the whole shape, the batch included",
        )
    for axis, (dim, length) in enumerate(zip(dims or (), shape, strict=False)):
        if isinstance(dim, int):
            known = (dim, "the file")
        elif axis == 0 or not dim.value:
            continue
        else:
            known = lengths.setdefault(str(dim.value), (length, f"input {name}"))
        if known[0] != length:
            raise OptionError(
                _OPTION,
                expected=f"{known[0]} at axis {axis} of input {name}, as {known[1]} says",
                found=given,
                way_out="state only what the file leaves free",
            )
