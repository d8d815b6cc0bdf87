"""The state of a run as arrays by name, parts of it under prefixes: what a checkpoint holds.

Numbers are arrays without axes. Whoever gives its state gives live arrays, to be written or copied at once.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import CheckpointError

State = Mapping[str, NDArray[Any]]


def under(prefix: str, state: State) -> dict[str, NDArray[Any]]:
    """The state as a part of a larger one: every name behind ``prefix/``."""
    return {f"{prefix}/{name}": array for name, array in state.items()}


def part(state: State, prefix: str) -> dict[str, NDArray[Any]]:
    """What ``under`` put there."""
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in state.items() if name.startswith(start)}


def fill(target: NDArray[Any], state: State, name: str) -> None:
    """Overwrite ``target`` by the array of that name.

    Raises:
        CheckpointError: there is none, or of another shape or dtype.
    """
    array = state.get(name)
    if array is None or array.shape != target.shape or array.dtype != target.dtype:
        found = "nothing" if array is None else f"{array.dtype} of shape {list(array.shape)}"
        raise CheckpointError(
            f"the checkpoint, {name}",
            expected=f"{target.dtype} of shape {list(target.shape)}",
            found=found,
            way_out="begin again with --force",
        )
    target[...] = array


def number(state: State, name: str) -> float:
    """The number of that name.

    Raises:
        CheckpointError: there is none.
    """
    value = np.zeros((), np.float64)
    fill(value, state, name)
    return float(value)
