"""Samples for a calibration without data: noise such as the inputs of a model look like, as far as the file says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.bench.inputs import index_range, random_inputs, required_inputs
from onnxadmm.errors import OptionError
from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model
from onnxadmm.graph.shapes import infer
from onnxadmm.plan.budget import Budget
from onnxadmm.train.prepare.nodes import as_proto
from onnxadmm.train.prepare.signature import ModelInput, inputs_of
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import Units

Array = NDArray[Any]
DoubleArray = NDArray[np.float64]

#: What stands for samples where there are none.
NONE: Final = "none"
#: What the report says of a run with them.
WARNING: Final = (
    "Calibrated without data: layers were fitted to noise that resembles the inputs only as far as the file betrays "
    "them. Figures on held-out samples are figures on such noise and say little about real ones; --test with real "
    "data says more, and --calibrate with real samples loses less."
)
#: The smallest share of the original that noise is good for.
_LEAST: Final = 0.75
#: How many are made.
_COUNT: Final = 256
#: Samples whose spectrum is shaped at a time.
_AT_A_TIME: Final = 32
#: Power that the channels of a picture share.
_SHARED: Final = 0.75
#: A factor below which values are scaled from those of pixels, 0 to 255, to 0 to 1.
_FROM_PIXELS: Final = 1 / 50
#: Mean and deviation of pictures whose values run from 0 to 1.
_PICTURE: Final = (0.5, 0.25)


def is_none(source: object) -> bool:
    """Whether a calibration is asked for without data."""
    return isinstance(source, str) and source == NONE


def refuse_tight(budget: Budget | None, units: Units, *, file_bytes: int) -> None:
    """Refuse a budget that noise is not good enough for.

    Args:
        file_bytes: of the original.

    Raises:
        OptionError: so it is.
    """
    if budget is None:
        return
    shares: dict[str, float] = {"connections": budget.connection_share}
    for kind in budget.amounts:
        if kind == "latency":
            shares[kind] = budget.latency_share or 0.0  # a time may be any share
        else:
            dense = float(file_bytes) if kind == "size" else Cost(units, kind).dense()
            shares[kind] = min(1.0, budget.resolve(kind, dense) / dense) if dense else 1.0
    for counted, share in shares.items():
        if share < _LEAST:
            raise OptionError(
                f"--{counted}",
                expected=f"at least {_LEAST:g} of the original with --calibrate {NONE}",
                found=f"{share:.3g} of it" if share else "a time",
                way_out="ask for less, or give --calibrate some hundred real samples, which need no labels",
            )


def made_samples(model: Model, *, seed: int, inputs: Mapping[str, object], count: int = _COUNT) -> dict[str, Array]:
    """Make samples of every input, as the model reads them.

    Floats have the mean and deviation that a normalisation at the input betrays, 0 and 1 without one; those of
    pictures are smooth, with amplitudes that fall with the frequency as in photographs. Integers are valid indices.

    Args:
        inputs: values of inputs by name, the same for every sample.

    Raises:
        ModelFileError: an input has no known rank, or a type that cannot be drawn.
    """
    drawn = random_inputs(model, batch=count, seed=seed, inputs=inputs, rows=count)
    shapes = infer(model)
    values = {value.name: value for value in required_inputs(model)}
    for position, spec in enumerate(inputs_of(as_proto(model))):
        value = values[spec.name]
        if spec.name in inputs or not spec.batched or index_range(value, shapes) is not None:
            continue
        dtype = value.dtype
        if dtype is not None and (dtype.is_floating_point() or _is_picture_of_bytes(spec, dtype)):
            generator = np.random.default_rng([seed, position, count])
            drawn[spec.name] = _of_type(spec, drawn[spec.name].shape, _statistics(value), dtype, generator)
    return drawn


@dataclass(frozen=True)
class _Statistics:
    """Mean and deviation of an input, each broadcast against it."""

    mean: DoubleArray
    deviation: DoubleArray


def _is_picture_of_bytes(spec: ModelInput, dtype: onnx_ir.DataType) -> bool:
    return dtype is onnx_ir.DataType.UINT8 and len(spec.shape) >= 4


def _statistics(value: onnx_ir.Value) -> _Statistics:
    """What the first operators make of an input x that they shift and scale to a x + b, which then has mean 0 and
    deviation 1, or those that a BatchNormalization takes out."""
    rank = len(value.shape) if value.shape is not None else 0
    factor, shift = np.ones(()), np.zeros(())
    mean, deviation = np.zeros(()), np.ones(())
    current = value
    while (node := _only_reader(current)) is not None:
        if node.op_type == "BatchNormalization" and len(node.outputs) == 1 and rank >= 2:
            means, variances = (constant(each) if each is not None else None for each in node.inputs[3:5])
            if means is not None and variances is not None:
                spread = (-1, *[1] * (rank - 2))
                mean = means.astype(np.float64).reshape(spread)
                deviation = np.sqrt(np.maximum(variances.astype(np.float64), 0)).reshape(spread)
            break
        if node.op_type not in ("Cast", "Identity"):
            found = _shifted(node, current, factor, shift)
            if found is None or max(found[0].ndim, found[1].ndim) > rank:
                break
            factor, shift = found
        current = node.outputs[0]
    is_scaled_only = not shift.any() and (np.abs(factor) < _FROM_PIXELS).all()
    is_bytes_alone = value.dtype is onnx_ir.DataType.UINT8 and (factor == 1).all() and not shift.any()
    if mean.ndim == 0 and (is_scaled_only or is_bytes_alone):
        mean, deviation = (np.full((), each * (255.0 if is_bytes_alone else 1.0)) for each in _PICTURE)
    return _Statistics((mean - shift) / factor, deviation / np.abs(factor))


def _only_reader(value: onnx_ir.Value) -> onnx_ir.Node | None:
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and uses[0].node.domain in ("", "ai.onnx") else None


def _shifted(
    node: onnx_ir.Node, value: onnx_ir.Value, factor: DoubleArray, shift: DoubleArray
) -> tuple[DoubleArray, DoubleArray] | None:
    """Factor and shift behind a node that adds, subtracts, multiplies or divides by a constant; None behind others."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or node.inputs[0] is not value or node.inputs[1] is None:
        return None
    array = constant(node.inputs[1])
    if array is None:
        return None
    number = array.astype(np.float64)
    if node.op_type in ("Add", "Sub"):
        return factor, shift + (number if node.op_type == "Add" else -number)
    if not number.all():
        return None
    change = number if node.op_type == "Mul" else 1 / number
    return factor * change, shift * change


def _of_type(
    spec: ModelInput,
    shape: tuple[int, ...],
    statistics: _Statistics,
    dtype: onnx_ir.DataType,
    generator: np.random.Generator,
) -> Array:
    channel = spec.channel_axis
    spatial = tuple(axis for axis in range(1, len(shape)) if axis != channel) if len(shape) >= 4 else ()
    made = np.empty(shape, np.dtype(dtype.numpy()))
    for start in range(0, len(made), _AT_A_TIME):
        part = made[start : start + _AT_A_TIME]
        noise = statistics.mean + statistics.deviation * _noise(part.shape, spatial, channel, generator)
        part[...] = noise if dtype.is_floating_point() else np.clip(np.rint(noise), 0, 255)
    return made


def _noise(
    shape: tuple[int, ...], spatial: tuple[int, ...], channel: int | None, generator: np.random.Generator
) -> DoubleArray:
    """Normal noise of mean 0 and deviation 1, smooth along the spatial axes of a picture, whose channels are alike."""
    if not spatial or channel is None:
        return generator.standard_normal(shape)
    one = tuple(1 if axis == channel else length for axis, length in enumerate(shape))
    common, own = (_smooth(generator.standard_normal(size), spatial) for size in (one, shape))
    return np.asarray(_SHARED**0.5 * common + (1 - _SHARED) ** 0.5 * own)


def _smooth(white: DoubleArray, axes: tuple[int, ...]) -> DoubleArray:
    """Noise whose amplitudes fall with the frequency, of deviation 1."""
    lengths = [white.shape[axis] for axis in axes]
    spectrum = np.fft.rfftn(white, axes=axes)
    squares = np.zeros([1] * white.ndim)
    for axis, length in zip(axes, lengths, strict=True):
        frequencies = np.fft.rfftfreq(length) if axis == axes[-1] else np.fft.fftfreq(length)
        squares = squares + np.square(frequencies).reshape([-1 if each == axis else 1 for each in range(white.ndim)])
    slowest = 1 / max(lengths)
    noise = np.fft.irfftn(spectrum / np.maximum(np.sqrt(squares), slowest), s=lengths, axes=axes)
    deviation = float(noise.std())
    return np.asarray(noise / deviation if deviation > 0 else white)
