"""What samples and classes count in the loss and in figures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError, OptionError
from onnxadmm.train.data.batches import Weighing
from onnxadmm.train.data.gallery import Column, Pictures
from onnxadmm.train.data.raw import Raw
from onnxadmm.train.data.sources import read_numbers
from onnxadmm.train.losses import IGNORED, Loss, Task

Array = NDArray[Any]
FloatArray = NDArray[np.float32]

BALANCED: Final = "balanced"
_CLASSES: Final = "--class-weights"
_SAMPLES: Final = "--sample-weights"


def weigh(
    *,
    classes: str | Sequence[float] | None,
    samples: Array | None,
    labels: Array | None,
    count: int | None,
    loss: Loss,
) -> Weighing | None:
    """Return what the samples of some data count, 1 on average; None where all count alike.

    Args:
        classes: ``"balanced"``, numbers, or a file of them.
        samples: a number for each sample, ``[N]``; None: all alike.
        labels: as the loss wants them; None without labels.
        count: classes of the model, None where that is not known.
        loss: cross-entropy where classes have weights.

    Raises:
        OptionError: the class weights cannot be used with these data.
        DataError: a sample weight is no number of at least 0, or all of them are 0.
    """
    if classes is None and samples is None:
        return None
    table = None if classes is None else _of_classes(classes, labels, count, loss)
    return Weighing(table, None if samples is None else np.asarray(samples, np.float32)).scaled(labels)


def take_sample_weights(raw: Raw, name: str, inputs: Sequence[str]) -> tuple[Raw, Array]:
    """Return the data without the weights of their samples, and these, float64 ``[N]``.

    Args:
        name: of the array among the data, or a file.
        inputs: names of the model's inputs, which they cannot be.

    Raises:
        DataError: there is no such array or file, or it does not hold a number of at least 0 for every sample.
        OptionError: it is an input of the model.
    """
    if name in inputs:
        raise OptionError(
            _SAMPLES, expected="an array beside the model's inputs", found=f"the input {name}", way_out="rename it"
        )
    arrays: dict[str, Column] = dict(raw.inputs)
    found: Column
    if name in arrays:
        found = arrays.pop(name)
    elif Path(name).suffix:
        found = read_numbers(Path(name))
    else:
        raise DataError(
            f"{raw.name}, {_SAMPLES}",
            expected=f"an array {name!r} among the data, or a file",
            found=", ".join(arrays),
            way_out="name one of the arrays, or a .npy file with a number for each sample",
        )
    lengths: Mapping[str, int] = {key: len(array) for key, array in arrays.items() if array.ndim}
    length = max(lengths.values(), default=0)
    numbers = np.zeros(0) if isinstance(found, Pictures) else np.asarray(found, np.float64)
    numbers = numbers.reshape(-1) if numbers.size == len(numbers) else numbers
    if numbers.shape != (length,) or not np.isfinite(numbers).all() or numbers.min() < 0 or not numbers.any():
        told = (
            f"shape {list(numbers.shape)}" if numbers.shape != (length,) else f"{numbers.min():g} to {numbers.max():g}"
        )
        raise DataError(
            f"{raw.name}, {_SAMPLES} {name}",
            expected=f"{length} finite numbers of at least 0, and some above it",
            found=told,
            way_out="give one weight for each sample",
        )
    return replace(raw, inputs=arrays), numbers


def _of_classes(asked: str | Sequence[float], labels: Array | None, count: int | None, loss: Loss) -> FloatArray:
    if loss.task is not Task.CROSS_ENTROPY or labels is None:
        found = "data without labels" if labels is None else f"--loss {loss.task.value}"
        raise OptionError(
            _CLASSES, expected="labels that are classes (--loss cross-entropy)", found=found, way_out="leave them out"
        )
    numbers, times = np.unique(labels[labels != IGNORED], return_counts=True)
    size = max(count or 0, int(numbers.max()) + 1)
    if asked == BALANCED:
        table = np.ones(size, np.float32)  # of classes that never occur
        table[numbers] = times.sum() / (len(numbers) * times)
        return table
    table = np.asarray(_numbers_of(asked), np.float32)
    if table.shape != (size,) or not np.isfinite(table).all() or table.min() < 0 or not table[numbers].any():
        raise OptionError(
            _CLASSES,
            expected=f"{size} finite numbers of at least 0, one for each class, and some above it",
            found=f"{table.size}: {', '.join(f'{each:g}' for each in table.reshape(-1)[:8])}",
            way_out="give one weight for each class, or balanced",
        )
    return table


def _numbers_of(asked: str | Sequence[float]) -> Array:
    if not isinstance(asked, str):
        return np.asarray(asked, np.float64)
    if Path(asked).is_file():
        return read_numbers(Path(asked))
    try:
        return np.array([float(part) for part in asked.split(",")])
    except ValueError as error:
        raise OptionError(
            _CLASSES,
            expected="balanced, numbers with commas between them, or a file of numbers",
            found=repr(asked),
            way_out="write e.g. 1,1,5",
        ) from error
