"""Data that fit the model: layout, dtype, labels and their ranges, or a refusal with numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError, OptionError
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.data.images import Augmentation, Transform, make_transform, parse_augmentation
from onnxadmm.train.data.sources import INPUT_NAMES, MEMORY_LIMIT, Raw, read_source
from onnxadmm.train.data.storage import transposed_copy
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.prepare.signature import CHANNELS, ModelInput, Signature

Array = NDArray[Any]


def load_data(
    source: object,
    *,
    signature: Signature,
    loss: Loss,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float | None = None,
    augment: str = "",
    memory_limit: int = MEMORY_LIMIT,
) -> ArrayDataset:
    """Read data and fit them to a model.

    Args:
        source: a path, arrays or an iterable of batches, see ``read_source``.
        signature: what the model reads and puts out.
        loss: decides dtype, shape and range of the labels, and whether any are needed.
        mean: one number or one per channel, subtracted after scaling.
        std: one number or one per channel, divided by after that.
        scale: factor on stored values; 1/255 for uint8 and 1 for others when omitted.
        augment: ``"flip,crop4"`` and the like, for image inputs.
        memory_limit: most bytes of samples kept in memory, see ``read_source``.

    Raises:
        DataError: the data are missing, unreadable, empty, not finite, or do not fit the model.
        OptionError: ``mean``, ``std``, ``scale`` or ``augment`` cannot be used with this model.
    """
    grey = any(spec.is_image and spec.shape[spec.channel_axis or 1] == 1 for spec in signature.inputs)
    raw = read_source(source, memory_limit=memory_limit, grey=grey)
    inputs = {spec.name: _fit(raw.name, spec, array, limit=memory_limit) for spec, array in _matched(raw, signature)}
    lengths = {name: len(array) for name, array in inputs.items()}
    if raw.labels is not None:
        lengths["labels"] = len(raw.labels) if raw.labels.ndim else 0
    if len(set(lengths.values())) != 1:
        found = ", ".join(f"{count} of {name}" for name, count in lengths.items())
        raise DataError(raw.name, expected="as many of each", found=found, way_out="give matching files")
    count = next(iter(lengths.values()))
    if count == 0:
        raise DataError(raw.name, expected="at least one sample", found="none", way_out="give data")
    labels = _fit_labels(raw, signature, loss)
    standard = (None if mean is None else tuple(mean), None if std is None else tuple(std))
    transforms: dict[str, Transform] = {}
    augmentation: dict[str, Augmentation] = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        pixels = spec.dtype.kind == "f"
        axis = spec.channel_axis
        several = len(signature.inputs) > 1 and not pixels
        transforms[spec.name] = make_transform(
            stored=array.dtype,
            dtype=spec.dtype,
            channel_axis=axis,
            channels=array.shape[axis] if axis is not None else 1,
            rank=array.ndim,
            mean=None if several else standard[0],
            std=None if several else standard[1],
            scale=None if several else scale,
        )
        change = parse_augmentation(augment, channels_last=spec.channels_last)
        if change is not None and spec.is_image:
            augmentation[spec.name] = change
    if augment and not augmentation:
        raise OptionError(
            "--augment",
            expected="a model with an image input of rank 4",
            found=", ".join(f"{spec.name} of rank {len(spec.shape)}" for spec in signature.inputs),
            way_out="leave it out",
        )
    return ArrayDataset(inputs, labels, transforms, augmentation, np.arange(count, dtype=np.int64))


def _matched(raw: Raw, signature: Signature) -> list[tuple[ModelInput, Array]]:
    """Pair each model input with its array: by name, by a usual name when there is one, or by position."""
    by_name = [(spec, raw.inputs[spec.name]) for spec in signature.inputs if spec.name in raw.inputs]
    if len(by_name) == len(signature.inputs):
        return by_name
    if len(signature.inputs) == 1:
        usual = [name for name in (*INPUT_NAMES, "0") if name in raw.inputs]
        if usual:
            return [(signature.inputs[0], raw.inputs[usual[0]])]
    elif all(str(index) in raw.inputs for index in range(len(signature.inputs))):
        return [(spec, raw.inputs[str(index)]) for index, spec in enumerate(signature.inputs)]
    raise DataError(
        raw.name,
        expected=f"arrays for the inputs {', '.join(spec.name for spec in signature.inputs)}",
        found=", ".join(raw.inputs),
        way_out="name the arrays like the model's inputs",
    )


def _fit(name: str, spec: ModelInput, array: Array, *, limit: int) -> Array:
    """Bring samples to the layout of an input, dtype left as stored, and check that they are finite."""
    sample = tuple(array.shape[1:])
    want = spec.shape[1:]
    layouts = [sample]
    if len(want) == 3 and len(sample) == 2:
        layouts = [(*sample, 1), (1, *sample)] if spec.channels_last else [(1, *sample), (*sample, 1)]
    fitted: Array | None = None
    for layout in layouts:
        if _fits(layout, want):
            fitted = array.reshape(len(array), *layout)
            break
    if fitted is None and len(want) == 3 and len(sample) == 3:
        if _fits((sample[2], *sample[:2]), want) and sample[2] in CHANNELS:
            fitted = transposed_copy(name, array, (0, 3, 1, 2), limit=limit)  # [N, H, W, C] -> [N, C, H, W]
        elif _fits((*sample[1:], sample[0]), want) and sample[0] in CHANNELS:
            fitted = transposed_copy(name, array, (0, 2, 3, 1), limit=limit)  # [N, C, H, W] -> [N, H, W, C]
    if fitted is None and None not in want and len(want) == 1 and int(np.prod(sample)) == want[0]:
        fitted = array.reshape(len(array), -1)
    if fitted is None or array.ndim == 0:
        raise DataError(
            f"{name}, input {spec.name}",
            expected=f"samples of shape {['?' if size is None else size for size in want]}",
            found=f"{list(sample)}",
            way_out="resize or reshape the data to the model's input",
        )
    if spec.dtype.kind in "iu" and fitted.dtype.kind == "f":
        raise DataError(
            f"{name}, input {spec.name}", expected=str(spec.dtype), found=str(fitted.dtype), way_out="give integers"
        )
    _check_range(f"{name}, input {spec.name}", fitted, spec.dtype)
    check_finite(f"{name}, input {spec.name}", fitted)
    return fitted.astype(np.float32) if fitted.dtype == np.float64 and spec.dtype == np.float32 else fitted


def _check_range(name: str, array: Array, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iu" or array.size == 0 or np.can_cast(array.dtype, dtype):
        return
    limits = np.iinfo(dtype)
    low, high = int(array.min()), int(array.max())
    if low < limits.min or high > limits.max:
        raise DataError(
            name,
            expected=f"{dtype} from {limits.min} to {limits.max}",
            found=f"{low} to {high}",
            way_out="give values the model's input can hold",
        )


def _fits(shape: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(shape) == len(want) and all(w is None or s == w for s, w in zip(shape, want, strict=True))


def check_finite(name: str, array: Array) -> None:
    """Refuse NaN and infinity, naming the first sample that has one.

    Raises:
        DataError: there is one.
    """
    if array.dtype.kind != "f":
        return
    for start in range(0, len(array), 1024):
        part = array[start : start + 1024]
        finite = np.isfinite(part)
        if not finite.all():
            sample = start + int(np.flatnonzero(~finite.reshape(len(part), -1).all(axis=1))[0])
            raise DataError(
                name, expected="finite numbers", found=f"NaN or infinity in sample {sample}", way_out="clean the data"
            )


def _fit_labels(raw: Raw, signature: Signature, loss: Loss) -> Array | None:
    """Labels in the dtype and shape the loss wants, their range checked; None when there are none."""
    if raw.labels is None:
        if loss.needs_labels:
            raise DataError(
                raw.name,
                expected=f"labels for the loss {loss.task.value}",
                found="none",
                way_out="give labels, or train from the teacher alone with --distillation 1",
            )
        return None
    name = f"{raw.name}, labels"
    logits = signature.logits
    if loss.task is Task.CROSS_ENTROPY:
        return _class_labels(name, raw, logits)
    labels = raw.labels
    check_finite(name, labels)
    want = None if logits is None else logits[1:]
    if want is not None and labels.ndim - 1 == len(want) - 1 and want[-1] == 1:
        labels = labels[..., None]  # [N] -> [N, 1]
    if want is not None and not _fits(tuple(labels.shape[1:]), want):
        raise DataError(
            name,
            expected=f"shape {['?' if size is None else size for size in want]} per sample, as the logits",
            found=str(list(labels.shape[1:])),
            way_out="give one target per output",
        )
    if loss.task is Task.BCE and labels.size and not (labels.min() >= 0 and labels.max() <= 1):
        raise DataError(
            name,
            expected="0 to 1 for the loss bce",
            found=f"{labels.min()} to {labels.max()}",
            way_out="give probabilities or 0 and 1",
        )
    return np.ascontiguousarray(labels, np.float32)


def _class_labels(name: str, raw: Raw, logits: tuple[int | None, ...] | None) -> Array:
    labels = raw.labels
    assert labels is not None
    classes = logits[1] if logits is not None and len(logits) > 1 else None
    if raw.classes is not None and classes is not None and len(raw.classes) != classes:
        raise DataError(
            raw.name,
            expected=f"{classes} class folders, as the model has logits",
            found=f"{len(raw.classes)} ({', '.join(raw.classes[:5])}{'...' if len(raw.classes) > 5 else ''})",
            way_out="give a folder per class of the model",
        )
    if labels.dtype.kind not in "iub":
        raise DataError(name, expected="integer classes", found=f"dtype {labels.dtype}", way_out="convert them")
    rank = len(logits) - 1 if logits is not None else 1
    if labels.ndim == rank + 1 and labels.shape[1] == 1:
        labels = labels[:, 0]  # [N, 1, ...] -> [N, ...]
    if labels.ndim != rank or (logits is not None and not _fits(tuple(labels.shape[1:]), logits[2:])):
        want = [] if logits is None else ["?" if size is None else size for size in logits[2:]]
        raise DataError(
            name,
            expected=f"one class per sample{f' and position {want}' if want else ''}",
            found=f"shape {list(labels.shape[1:])} per sample",
            way_out="give class numbers, not one-hot rows",
        )
    if labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (classes is not None and high >= classes):
            top = "" if classes is None else f" to {classes - 1}, as the model has {classes} logits"
            raise DataError(
                name, expected=f"classes 0{top}", found=f"{low} to {high}", way_out="number the classes from 0"
            )
    return np.ascontiguousarray(labels, np.int64)
