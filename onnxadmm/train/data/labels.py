"""Labels that fit the logits: the axis of the classes, labels of every usual form, and what has no label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError, OptionError
from onnxadmm.train.losses import IGNORED, Loss, Task
from onnxadmm.train.prepare.signature import Signature

Array = NDArray[Any]
Shape = tuple[int | None, ...]

#: What many data sets write where a position has no label; 255 only where it is no class of the model.
_USUALLY_IGNORED = (IGNORED, 255)
_MOST_NAMES = 12
_MOST_CLASSES = 5
#: Samples whose rows are looked at together.
_ROWS = 1024


@dataclass(frozen=True)
class Fitted:
    """Labels as the loss reads them.

    Attributes:
        labels: int64 ``[N, ...]`` for cross-entropy, ``IGNORED`` where there is none; float32 of the logits' shape,
            samples first, otherwise; None without labels.
        class_axis: axis of the model's logits along which the classes lie; None where the loss has no classes, or
            the logits no known shape.
        notes: sentences on what was done to the labels.
    """

    labels: Array | None
    class_axis: int | None = None
    notes: tuple[str, ...] = ()


def fit_labels(
    labels: Array | None,
    *,
    name: str,
    signature: Signature,
    loss: Loss,
    classes: Sequence[str] | None = None,
    class_axis: int | None = None,
    ignore_index: int | None = None,
) -> Fitted:
    """Bring labels to the dtype and shape that the loss wants.

    Args:
        labels: as they were read, samples on axis 0; None without.
        name: what messages call the data.
        classes: their names in the order of their numbers, where folders or lists gave names.
        class_axis: axis of the classes in the model's output; found from its tail and the labels when None.
        ignore_index: the label that means none; -100, and 255 where it is no class, when None.

    Raises:
        DataError: labels are missing, or do not fit the logits or the loss.
        OptionError: the axis of the classes is open or wrong, or an option has no meaning with this loss.
    """
    if loss.task is not Task.CROSS_ENTROPY:
        _refuse_options(class_axis, ignore_index, loss)
    if labels is None and loss.needs_labels:
        raise DataError(
            name,
            expected=f"labels for the loss {loss.task.value}",
            found="none",
            way_out="give labels, or train from the teacher alone with --distillation 1",
        )
    if loss.task is Task.MSE and classes is not None and labels is not None:
        raise DataError(
            f"{name}, labels",
            expected="numbers for the loss mse",
            found=f"names of classes ({_named(classes)})",
            way_out="give numbers, or --loss cross-entropy where the outputs are scores of classes",
        )
    if loss.task is not Task.CROSS_ENTROPY:
        return Fitted(
            None if labels is None else _targets(labels, name=f"{name}, labels", signature=signature, loss=loss)
        )
    axis = _class_axis(labels, name, signature, class_axis, ignore_index)
    if labels is None:
        return Fitted(None, axis)
    shape = None if signature.logits is None else _samples_first(signature.logits, signature)
    place = None if axis is None else _place(axis, signature)
    _refuse_other_count(name, classes, None if shape is None or place is None else shape[place])
    fitted, notes = _class_labels(f"{name}, labels", labels, shape, place, ignore_index)
    return Fitted(fitted, axis, notes)


def _refuse_options(class_axis: int | None, ignore_index: int | None, loss: Loss) -> None:
    for option, value in (("--class-axis", class_axis), ("--ignore-index", ignore_index)):
        if value is not None:
            raise OptionError(
                option,
                expected="a loss that has classes, --loss cross-entropy",
                found=f"--loss {loss.task.value}",
                way_out="leave it out",
            )


def _samples_first(logits: Shape, signature: Signature) -> Shape:
    axis = max(0, signature.batch_axis)
    return (*logits[axis : axis + 1], *logits[:axis], *logits[axis + 1 :])


def _place(axis: int, signature: Signature) -> int:
    """Where an axis of the model's logits stands once the samples come first."""
    return axis + 1 if axis < signature.batch_axis else axis


def _class_axis(
    labels: Array | None, name: str, signature: Signature, asked: int | None, ignore_index: int | None
) -> int | None:
    """The axis of the classes: asked for, of the tail, or the only one that the labels fit."""
    logits = signature.logits
    if asked is not None:
        rank = len(logits) if logits is not None else None
        if rank is not None and (not -rank <= asked < rank or asked % rank == signature.batch_axis):
            raise OptionError(
                "--class-axis",
                expected=f"an axis of the logits {_shown(logits)} that is not that of the samples",
                found=str(asked),
                way_out=f"give one from 0 to {rank - 1}, without {signature.batch_axis}",
            )
        if rank is None and asked < 0:
            raise OptionError(
                "--class-axis",
                expected="a number from 0, as the shape of the logits is not known",
                found=str(asked),
                way_out="count from the front",
            )
        return asked if rank is None else asked % rank
    if signature.class_axis is not None and signature.class_axis != signature.batch_axis:
        return signature.class_axis
    if logits is None:
        return None
    others = [axis for axis in range(len(logits)) if axis != signature.batch_axis]
    if len(others) <= 1:
        return others[0] if others else None
    shape = _samples_first(logits, signature)
    fitting = [
        axis
        for axis in others
        if labels is None or _may_be_classes(labels, shape, _place(axis, signature), ignore_index)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        # None fits: the usual one says best what is wrong.
        return 1 if 1 in others else others[0]
    found = " and ".join(str(axis) for axis in fitting) if len(fitting) < 4 else ", ".join(map(str, fitting))
    raise OptionError(
        "--class-axis",
        expected=f"one axis of the logits {_shown(logits)} that holds the classes"
        + ("" if labels is None else f" of labels {list(labels.shape[1:])}"),
        found=f"axes {found}, which all {'may' if labels is None else 'fit'}",
        way_out="say which one it is, or use --loss mse where the outputs are no classes",
    )


def _may_be_classes(labels: Array, shape: Shape, place: int, ignore_index: int | None) -> bool:
    """Whether labels fit logits, samples first, whose classes lie along an axis: as numbers or one-hot."""
    size = shape[place]
    if size is not None and size < 2:
        return False
    if _fits(labels.shape[1:], shape[1:]):
        return _is_one_hot(labels, place)
    numbers = _without_column(labels, shape, place)
    if not _fits(numbers.shape[1:], _rest(shape, place)) or not _is_whole(numbers):
        return False
    known = numbers[~_ignored(numbers, size, ignore_index)]
    return known.size == 0 or (bool(known.min() >= 0) and (size is None or bool(known.max() < size)))


def _class_labels(
    name: str, labels: Array, shape: Shape | None, place: int | None, ignore_index: int | None
) -> tuple[Array, tuple[str, ...]]:
    """Class numbers int64 ``[N, ...]`` from numbers or one-hot rows, and what was done."""
    notes: list[str] = []
    classes = None
    if shape is not None and place is not None and place < len(shape):
        classes, rest = shape[place], _rest(shape, place)
        if _fits(labels.shape[1:], shape[1:]) and labels.ndim > 1 and not _fits(labels.shape[1:], rest):
            if not _is_one_hot(labels, place):
                raise DataError(
                    name,
                    expected=f"one class per sample{_positions(rest)}, as a number or a one-hot row",
                    found=f"rows of {labels.shape[place]} numbers that are not one-hot",
                    way_out="give class numbers, or use --loss bce for several classes at once and --loss mse for "
                    "numbers",
                )
            notes.append(f"One-hot labels were read as class numbers, the position of the 1 of {labels.shape[place]}.")
            labels = labels.argmax(axis=place)
        labels = _without_column(labels, shape, place)
        if not _fits(labels.shape[1:], rest):
            raise DataError(
                name,
                expected=f"one class per sample{_positions(rest)}, for logits {_shown(shape)} with classes on axis "
                f"{place}",
                found=f"shape {list(labels.shape[1:])} per sample",
                way_out="give class numbers of that shape, name another axis of the logits with --class-axis, or use "
                "--loss mse for numbers",
            )
    elif labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    check_finite(name, labels)
    if not _is_whole(labels):
        raise DataError(
            name,
            expected="integer classes",
            found=f"dtype {labels.dtype} with fractions",
            way_out="give class numbers, or use --loss mse for numbers and --loss bce for probabilities",
        )
    if labels.dtype.kind == "f":
        notes.append(f"Labels of type {labels.dtype} were read as the class numbers they are.")
    gaps = _ignored(labels, classes, ignore_index)
    whole = np.array(labels, np.int64, order="C")
    if gaps.any():
        values = sorted({int(value) for value in np.unique(whole[gaps])})
        notes.append(
            f"{100 * gaps.mean():.3g} % of the labels are {' or '.join(map(str, values))}, "
            "which was taken for no label."
        )
        whole[gaps] = IGNORED
    known = whole[~gaps]
    if whole.size and not known.size:
        raise DataError(
            name, expected="at least one label", found="none", way_out="give labels, or another --ignore-index"
        )
    low, high = (int(known.min()), int(known.max())) if known.size else (0, 0)
    if low < 0 or (classes is not None and high >= classes):
        top = "" if classes is None else f" to {classes - 1}, as the model has {classes} logits"
        raise DataError(
            name,
            expected=f"classes 0{top}",
            found=f"{low} to {high}",
            way_out="use --loss bce for a probability of yes"
            if classes == 1
            else "number the classes from 0, name the value that means no label with --ignore-index, or use --loss mse "
            "for numbers",
        )
    notes += _missing(known, classes)
    return whole, tuple(notes)


def _missing(known: Array, classes: int | None) -> list[str]:
    """A sentence that names classes without a sample, where most have some."""
    if classes is None or not known.size:
        return []
    absent = np.flatnonzero(np.bincount(known.reshape(-1), minlength=classes) == 0)
    if not 0 < len(absent) <= classes // 2:
        return []
    shown = ", ".join(map(str, absent[:_MOST_NAMES])) + ("..." if len(absent) > _MOST_NAMES else "")
    return [f"{len(absent)} of {classes} classes have no sample: {shown}."]


def _targets(labels: Array, *, name: str, signature: Signature, loss: Loss) -> Array:
    """Numbers float32 of the logits' shape, samples first."""
    check_finite(name, labels, np.dtype(np.float32))
    want = None if signature.logits is None else _samples_first(signature.logits, signature)[1:]
    if want is not None and labels.ndim == len(want) and want[-1] == 1:
        labels = labels[..., None]  # [N] -> [N, 1]
    if want == () and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if want is not None and not _fits(labels.shape[1:], want):
        raise DataError(
            name,
            expected=f"shape {_shown(want)} per sample, as the logits",
            found=str(list(labels.shape[1:])),
            way_out="give one target per output",
        )
    if loss.task is Task.BCE and labels.size and not (labels.min() >= 0 and labels.max() <= 1):
        raise DataError(
            name,
            expected="0 to 1 for the loss bce",
            found=f"{labels.min()} to {labels.max()}",
            way_out="give probabilities or 0 and 1, or use --loss mse for numbers",
        )
    return np.ascontiguousarray(labels, np.float32)


def check_finite(name: str, array: Array, dtype: np.dtype[Any] | None = None) -> None:
    """Refuse NaN, infinity and what another type of floats cannot hold, naming the first sample that has one.

    Args:
        dtype: what the numbers become; None: they stay.

    Raises:
        DataError: there is one.
    """
    if array.dtype.kind != "f":
        return
    most = np.finfo(array.dtype if dtype is None or dtype.kind != "f" else dtype).max
    for start in range(0, len(array), _ROWS):
        part = array[start : start + _ROWS]
        fine = np.abs(part) <= most  # NaN is no less than anything
        if not fine.all():
            sample = start + int(np.flatnonzero(~fine.reshape(len(part), -1).all(axis=1))[0])
            finite = np.isfinite(array[sample]).all()
            raise DataError(
                name,
                expected=f"numbers that {dtype} can hold" if finite else "finite numbers",
                found=f"{np.abs(array[sample]).max():.3g} in sample {sample}"
                if finite
                else f"NaN or infinity in sample {sample}",
                way_out="scale or clean the data" if finite else "clean the data",
            )


def match_classes(
    labels: Array, found: Sequence[str], known: Sequence[str], *, name: str
) -> tuple[Array, tuple[str, ...]]:
    """Number classes as other data did, by their names.

    Args:
        labels: int64 ``[N]``, numbers of classes in ``found``.
        found: names of the classes of these data.
        known: names of those of the data that were read before, in the order of their numbers.
        name: what messages call the data.

    Returns:
        The labels as numbers of classes in ``known``, and the names of all of those.

    Raises:
        DataError: a class is not among those that are known.
    """
    places = {each: place for place, each in enumerate(known)}
    used = [found[number] for number in np.unique(labels).tolist()]
    if unknown := [each for each in used if each not in places]:
        raise DataError(
            f"{name}, labels",
            expected=f"the classes of the training data ({_named(known)})",
            found=_named(unknown),
            way_out="name them alike",
        )
    return np.array([places.get(each, IGNORED) for each in found], np.int64)[labels], tuple(known)


def _refuse_other_count(name: str, classes: Sequence[str] | None, count: int | None) -> None:
    if classes is None or count is None or len(classes) == count:
        return
    raise DataError(
        name,
        expected=f"{count} classes, as the model has logits",
        found=f"{len(classes)} ({_named(classes)})",
        way_out="give a class folder, or a name in the list, for each class of the model",
    )


def _named(classes: Sequence[str]) -> str:
    return f"{', '.join(classes[:_MOST_CLASSES])}{', ...' if len(classes) > _MOST_CLASSES else ''}"


def _ignored(labels: Array, classes: int | None, ignore_index: int | None) -> NDArray[np.bool_]:
    if labels.dtype.kind == "b":
        return np.zeros(labels.shape, np.bool_)
    if ignore_index is not None:
        return np.asarray(labels == ignore_index)
    found = np.zeros(labels.shape, np.bool_)
    for value in _USUALLY_IGNORED:
        if value < 0 or (classes is not None and value >= classes):
            found |= labels == value
    return found


def _is_whole(labels: Array) -> bool:
    return labels.dtype.kind in "iub" or bool((np.isfinite(labels) & (labels == np.floor(labels))).all())


def _is_one_hot(labels: Array, place: int) -> bool:
    """Whether along an axis exactly one number is 1 and all others are 0, for every sample and position."""
    for start in range(0, len(labels), _ROWS):
        part = labels[start : start + _ROWS]
        if not ((part == 0) | (part == 1)).all() or not ((part != 0).sum(axis=place) == 1).all():
            return False
    return len(labels) > 0


def _without_column(labels: Array, shape: Shape, place: int) -> Array:
    """[N, 1, ...] -> [N, ...], where the logits have one axis less without their classes."""
    if labels.ndim == len(shape) and labels.shape[place] == 1:
        return np.squeeze(labels, axis=place)
    return labels


def _rest(shape: Shape, place: int) -> Shape:
    return tuple(size for axis, size in enumerate(shape) if axis not in (0, place))


def _fits(shape: tuple[int, ...], want: Shape) -> bool:
    return len(shape) == len(want) and all(w is None or s == w for s, w in zip(shape, want, strict=True))


def _positions(rest: Shape) -> str:
    return f" and position {_shown(rest)}" if rest else ""


def _shown(shape: Shape | None) -> str:
    return "?" if shape is None else str(["?" if size is None else size for size in shape]).replace("'?'", "?")
