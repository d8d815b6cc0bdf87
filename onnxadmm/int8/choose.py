"""Which operators keep their floats: those without which a model in bytes loses too much."""

from collections.abc import Callable
from dataclasses import dataclass

from onnxadmm.graph.model import Model
from onnxadmm.int8.static import Quantizer


@dataclass(frozen=True)
class InBytes:
    """A model in bytes.

    Attributes:
        model: itself.
        floats: names of the operators that kept their floats, the one that gained most first.
        lost: by it, as it was measured.
    """

    model: Model
    floats: tuple[str, ...]
    lost: float


def leave_in_float(
    quantizer: Quantizer,
    *,
    lost: Callable[[Model], float],
    distance: Callable[[Model], float],
    most: float,
    on_look: Callable[[int, int], None] = lambda done, total: None,
) -> InBytes:
    """Quantise as much of a model as it bears.

    Where all of it loses too much, every operator is left in floats alone, all others being in bytes; what brings a
    model nearest to the original is left first. How many are left is found by halving, as more of them never lose
    much more.

    Args:
        quantizer: of the model.
        lost: by a model, in the unit of ``most``.
        distance: of a model from the original, finer than ``lost``.
        most: that may be lost.
        on_look: told how many models of how many were looked at.
    """
    made = quantizer.quantized()
    total = 1 + len(quantizer.nodes) + max(1, len(quantizer.nodes)).bit_length()
    on_look(1, total)
    whole = InBytes(made, (), lost(made))
    if whole.lost <= most:
        return whole
    found: dict[str, float] = {}
    for name in quantizer.nodes:
        found[name] = distance(quantizer.quantized({name}))
        on_look(1 + len(found), total)
    order = sorted(found, key=lambda name: found[name])

    def left(count: int) -> InBytes:
        model = quantizer.quantized(order[:count])
        return InBytes(model, tuple(order[:count]), lost(model))

    low, high, best = 0, len(order), left(len(order))  # with nothing in bytes nothing is lost
    while high - low > 1:
        middle = (low + high) // 2
        tried = left(middle)
        if tried.lost <= most:
            high, best = middle, tried
        else:
            low = middle
    return best
