"""How far float rounding alone moves the outputs of a model, measured on that model itself.

A ratio in decibels asks too much of an output that is saturated or badly conditioned: Sigmoid values of 1e-7 come out
in steps of 6e-8. So the masked original is run again with its sums in another order, as onnxruntime optimises it, and
with every weight moved by a unit in the last place, which is what rounding each product would do. What these runs
differ by from the first one is the noise floor of an output. Neither uses a rule, so a wrong rule cannot raise it.

A saturated output shows little of what is before it, a fault as little as noise. There the same networks are compared
once more without the functions that saturate, see ``without_saturation``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.constants import FLOATS
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.runtime import open_session
from onnxadmm.operators.table import find
from onnxadmm.rewrite.comparing import compare

Array = NDArray[Any]

#: A difference of at most so many noise floors is rounding; the largest that correct networks show is 1.3.
MULTIPLE: Final = 4.0
#: Rounding lowers the ratio that is asked by at most so many decibels; below, an output shows too little of a fault.
GRACE_DB: Final = 20.0

_DRAWS: Final = 3
#: Functions of single elements that map much of the line to nearly one value, and are rounded in steps of 1 there.
#: No rewrite touches them, so Identity in their place on both sides hides nothing.
_SATURATING: Final = frozenset(("Erf", "HardSigmoid", "Sigmoid", "Softplus", "Tanh"))


@dataclass(frozen=True)
class WithinNoise:
    """An output that missed the ratio that is asked, and differs by no more than rounding.

    Attributes:
        output: its name.
        snr_db: the ratio it reached, in dB, on its worst input.
        difference: largest absolute difference, on the input where it is most floors.
        floor: what rounding alone changes there.
        multiple: how many floors pass.
        unsaturated_db: where it is too saturated to show a fault, the ratio without the functions that saturate.
    """

    output: str
    snr_db: float
    difference: float
    floor: float
    multiple: float = MULTIPLE
    unsaturated_db: float | None = None

    def __str__(self) -> str:
        """One clause with the figures."""
        before = "" if self.unsaturated_db is None else f", and {self.unsaturated_db:.1f} dB before it saturates"
        return (
            f"{self.output}, {self.snr_db:.1f} dB, differs by {self.difference:.2g}, "
            f"{self.difference / self.floor:.2g} times what rounding alone changes in the masked original "
            f"(at most {self.multiple:g} times){before}"
        )


def noise_floors(
    model: Model, inputs: Sequence[Mapping[str, Array]], expected: Sequence[Mapping[str, Any]], *, threads: int
) -> list[dict[str, float]]:
    """Measure how far rounding moves each output of a model.

    The sessions are opened one after the other.

    Args:
        model: the model; it is not changed.
        inputs: batches it is run on.
        expected: what it put out for each, run as written.
        threads: of one operator.

    Returns:
        For each batch the largest absolute difference of every float output between two runs that differ by rounding.
    """
    floors = [dict.fromkeys(found, 0.0) for found in expected]
    for run, reordered in ((model, True), *((_moved(model, seed), False) for seed in range(_DRAWS))):
        try:
            with open_session(run, threads=threads, as_written=True, reordered=reordered) as session:
                for feed, wanted, floor in zip(inputs, expected, floors, strict=True):
                    for name, found in session.run(feed, list(wanted)).items():
                        gap = compare(wanted[name], found)
                        # NaN on one side only: this run says nothing of the size of rounding.
                        floor[name] = max(floor[name], gap.max_abs_error if gap.problem is None else 0.0)
        except ModelFileError:
            continue  # an order of summation that does not run measures nothing
    return floors


def without_saturation(model: Model, output: str) -> tuple[Model, tuple[str, ...]]:
    """Replace the functions that saturate and lead to an output through element-wise and moving operators alone.

    Args:
        model: the model; it is not changed.
        output: name of the output.

    Returns:
        A copy with Identity in their place and no other output, and the names of the results that are replaced.
    """
    copy = clone(model)
    graph = copy.ir.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name == output]
    replaced: list[str] = []
    waiting = [value for value in graph.outputs if value.producer() is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop().producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in _SATURATING:
            replaced.append(node.outputs[0].name or "")
            node.op_type = "Identity"
            node.attributes.clear()
            continue
        operator = find(node.domain, node.op_type)
        if operator.elementwise or operator.moves is not None:
            count = len(node.inputs) if operator.elementwise else operator.data_count(len(node.inputs))
            before = [value for value in node.inputs[:count] if value is not None and value not in seen]
            seen.update(before)
            waiting += before
    return copy, tuple(sorted(replaced))


def _moved(model: Model, seed: int) -> Model:
    """A copy with every weight of a layer one unit in the last place up or down; zeros stay, and so do sizes.

    The weights are made one at a time while the copy is serialised.
    """
    copy = clone(model)
    for number, value in enumerate(_layer_weights(copy)):
        tensor = value.const_value
        if tensor is not None and tensor.dtype in FLOATS:
            value.const_value = _lazily_moved(tensor, [seed, number])
    return copy


def _layer_weights(model: Model) -> Iterator[onnx_ir.Value]:
    """Initializers that layers, and what adds to or scales them, compute with."""
    for value in model.ir.graph.initializers.values():
        uses = [(find(node.domain, node.op_type), position) for node, position in value.uses()]
        if uses and all(_is_arithmetic(operator, position) for operator, position in uses):
            yield value


def _is_arithmetic(operator: Any, position: int) -> bool:
    return (
        (operator.is_layer and position in operator.weights)
        or position in operator.vectors
        or (operator.elementwise and operator.scales)
    )


def _lazily_moved(tensor: onnx_ir.TensorProtocol, seed: list[int]) -> onnx_ir.LazyTensor:
    def move() -> onnx_ir.TensorProtocol:
        array = np.asarray(tensor.numpy())
        # Not from a 16-bit type: numpy has no arithmetic of its own for bfloat16.
        step = 2.0**-7 if tensor.dtype is onnx_ir.DataType.BFLOAT16 else float(np.finfo(array.dtype).eps)
        up = np.random.default_rng(seed).random(array.shape, dtype=np.float32) < 0.5
        moved = array * np.where(up, 1.0 + step, 1.0 - step).astype(array.dtype)
        return onnx_ir.Tensor(moved, dtype=tensor.dtype, name=tensor.name)

    return onnx_ir.LazyTensor(move, tensor.dtype, onnx_ir.Shape(tensor.numpy().shape), name=tensor.name)
