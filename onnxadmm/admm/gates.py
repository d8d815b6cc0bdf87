"""Gates on units without touching the training graph.

The trainer trains the plain network. The solver keeps the weights ``W`` that the gates multiply (the masters) and,
for a step, writes the effective weights ``W v`` into the engine's memory. What comes back is ``G = dL/d(W v)``, so

    dL/dv_j = sum over the readers of unit j of <G, W_j>,      dL/dW = v G.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import FloatArray, Reader
from onnxadmm.errors import OptionError

DoubleArray = NDArray[np.float64]
Number = TypeVar("Number", np.float32, np.float64, np.bool_)


def sliced(array: NDArray[Number], reader: Reader) -> NDArray[Number]:
    """View ``array`` (the reader's tensor, C-contiguous) as ``[blocks, before, n, after]``, n the reader's axis."""
    blocks = reader.block_count
    length = array.shape[reader.axis]
    before = int(np.prod(array.shape[: reader.axis]))
    after = int(np.prod(array.shape[reader.axis + 1 :]))
    return array.reshape(blocks, before // blocks, length, after)


def position_mask(keep: NDArray[np.bool_], reader: Reader, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Entries of the reader's tensor whose unit is kept or which are not gated: bool of ``shape``."""
    mask = np.ones(tuple(shape), dtype=np.bool_)
    view = sliced(mask, reader)
    np.logical_and(view, _by_position(np.append(keep, True), reader), out=view)
    return mask


def _by_position(with_neutral: NDArray[Number], reader: Reader) -> NDArray[Number]:
    """Spread per-unit values over the reader's axis as ``[blocks, 1, n, 1]``; -1 takes the neutral last entry."""
    units = np.atleast_2d(reader.units)
    return with_neutral[units][:, None, :, None]


def _check(reader: Reader, shape: tuple[int, ...], unit_count: int) -> None:
    units, blocks = reader.units, reader.block_count
    fits = (
        units.ndim in (1, 2)
        and 0 <= reader.axis < len(shape)
        and units.shape[-1] == shape[reader.axis]
        and (blocks == 1 or (reader.axis > 0 and shape[0] % blocks == 0))
    )
    if not fits:
        raise OptionError(
            f"the reader of {reader.tensor}",
            expected=f"one unit per position of an axis of a tensor of shape {list(shape)}",
            found=f"units of shape {list(units.shape)} on axis {reader.axis}",
            way_out="describe the weight's own axis",
        )
    if units.size and (int(units.min()) < -1 or int(units.max()) >= unit_count):
        raise OptionError(
            f"the reader of {reader.tensor}",
            expected=f"units -1 to {unit_count - 1}",
            found=f"{int(units.min())} to {int(units.max())}",
            way_out="number units within the problem's unit count",
        )


class _GatedTensor:
    """One weight with the readers that gate it, and the buffers a step needs."""

    def __init__(self, readers: Sequence[Reader], live: FloatArray, gradient: FloatArray, *, held: bool) -> None:
        self.readers = tuple(readers)
        self.held = held
        self.live = live
        self.gradient = gradient
        self.master: FloatArray = live.copy()
        self._product: FloatArray = np.empty_like(live)
        self._scales: list[FloatArray] = []

    def write(self, gates_with_neutral: FloatArray) -> None:
        self._scales = [_by_position(gates_with_neutral, reader) for reader in self.readers]
        self.live[...] = self.master
        for reader, scale in zip(self.readers, self._scales, strict=True):
            view = sliced(self.live, reader)
            view *= scale

    def collect(self, total: DoubleArray) -> None:
        for index, reader in enumerate(self.readers):
            np.multiply(self.gradient, self.master, out=self._product)
            for other, scale in enumerate(self._scales):
                if other != index:
                    view = sliced(self._product, self.readers[other])
                    view *= scale
            # [blocks, before, n, after] -> [blocks, n]
            per_position = sliced(self._product, reader).sum(axis=(1, 3))
            units = np.atleast_2d(reader.units)
            gated = units >= 0
            total += np.bincount(units[gated], weights=per_position[gated], minlength=total.size)
        for reader, scale in zip(self.readers, self._scales, strict=True):
            view = sliced(self.gradient, reader)
            view *= scale
        self.live[...] = self.master

    def store(self) -> None:
        if self.held:
            self.live[...] = self.master
        else:
            self.master[...] = self.live


class GatedWeights:
    """The weights of a network whose units are gated, over the trainer's live memory.

    One step is ``write(v)``, the trainer's ``backward``, ``collect()``, the trainer's ``update``, ``store()``.

    Args:
        weights: live weights by name.
        gradients: live gradients by name.
        readers: who reads the units; a tensor may have several.
        unit_count: units of the problem.
        held: names of tensors that hold gates alone (see ``Problem.held``).

    Raises:
        OptionError: a reader does not fit its tensor, or its tensor is not trained.
    """

    def __init__(
        self,
        weights: Mapping[str, FloatArray],
        gradients: Mapping[str, FloatArray],
        *,
        readers: Sequence[Reader],
        unit_count: int,
        held: Collection[str] = (),
    ) -> None:
        by_tensor: dict[str, list[Reader]] = {}
        for reader in readers:
            if reader.tensor not in weights:
                raise OptionError(
                    f"the reader of {reader.tensor}",
                    expected="a weight that is trained",
                    found="no weight of that name",
                    way_out="train the weight or lock the group",
                )
            _check(reader, weights[reader.tensor].shape, unit_count)
            by_tensor.setdefault(reader.tensor, []).append(reader)
        self._unit_count = unit_count
        self._tensors = {
            name: _GatedTensor(some, weights[name], gradients[name], held=name in held)
            for name, some in by_tensor.items()
        }

    def write(self, gates: DoubleArray) -> None:
        """Put ``W v`` into the live weights; ``gates`` is float64 ``[unit_count]``."""
        with_neutral = np.append(gates, 1.0).astype(np.float32)
        for tensor in self._tensors.values():
            tensor.write(with_neutral)

    def settle(self, gates: DoubleArray, keep: NDArray[np.bool_]) -> None:
        """Put the network of the kept units into the live weights: their gates multiplied in, zero for the others.

        In tensors that are held every kept unit counts fully: what is left of its gate has no weight to go into.
        """
        soft = np.append(np.where(keep, gates, 0.0), 1.0).astype(np.float32)
        hard = np.append(keep, True).astype(np.float32)
        for tensor in self._tensors.values():
            tensor.write(hard if tensor.held else soft)

    def collect(self) -> DoubleArray:
        """Turn the live gradients from ``G`` into ``dL/dW``, put ``W`` back, return ``dL/dv``.

        The return value is float64 ``[unit_count]``. Must follow ``write`` and ``backward``.
        """
        total = np.zeros(self._unit_count, dtype=np.float64)
        for tensor in self._tensors.values():
            tensor.collect(total)
        return total

    def store(self) -> None:
        """Take the live weights as the new masters; tensors that are held stay what they were."""
        for tensor in self._tensors.values():
            tensor.store()
