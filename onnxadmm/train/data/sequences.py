"""What Python hands over: iterables of batches or of samples, and data sets that give samples by number."""

from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.train.data.listing import IMAGE_SUFFIXES, Label, Labels, Listing
from onnxadmm.train.data.names import LABEL_NAMES, Split
from onnxadmm.train.data.raw import Raw, Reading, from_listing, from_mapping, to_array
from onnxadmm.train.data.shelves import Spool
from onnxadmm.train.data.storage import Growing

Array = NDArray[Any]


def is_by_number(source: object) -> bool:
    """Whether a source gives samples by number, as a map-style data set does."""
    return hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "__array__")


def read_items(source: object, reading: Reading, split: Split) -> Raw:
    """Read an iterable of batches or samples, or a data set that gives samples by number, from end to end.

    Each is asked for once. All are kept, in memory up to a limit and in a temporary file beyond it, since a part is
    held out and the rest is read in another order in every epoch. An item is a sample where its label is one number, or
    where it holds a picture: an image of Pillow's, the bytes of an image file, or its path.

    Raises:
        DataError: there is nothing, or items differ in what they hold.
    """
    items = _by_number(source) if not isinstance(source, Iterable) or _is_map_style(source) else iter(source)
    first = next(items, None)
    if first is None:
        raise DataError("iterable of batches", expected="at least one batch", found="none", way_out="give data")
    if _picture_in(first) is not None:
        return _pictures(_again(first, items), reading)
    return _arrays(_again(first, items), reading, split)


def _is_map_style(source: object) -> bool:
    return is_by_number(source) and not isinstance(source, (list, tuple))


def _by_number(source: Any) -> Iterator[object]:
    return (source[number] for number in range(len(source)))


def _again(first: object, items: Iterator[object]) -> Iterator[object]:
    yield first
    yield from items


def _arrays(items: Iterator[object], reading: Reading, split: Split) -> Raw:
    inputs: dict[str, Growing] = {}
    labels: Growing | None = None
    for number, item in enumerate(items):
        batch = _one_batch(item, number, split)
        labelled = batch.labels is not None
        if not number:
            share = reading.memory_limit // (len(batch.inputs) + labelled)
            inputs = {key: Growing(_NAME, limit=share) for key in batch.inputs}
            labels = Growing(f"{_NAME}, labels", limit=share) if labelled else None
        elif set(batch.inputs) != set(inputs) or labelled != (labels is not None):
            raise DataError(
                f"batch {number}",
                expected=f"the inputs {', '.join(inputs)} {'with' if labels else 'without'} labels, as in batch 0",
                found=f"{', '.join(batch.inputs)} {'with' if labelled else 'without'} labels",
                way_out="give all batches the same parts",
            )
        for key, array in batch.inputs.items():
            inputs[key].append(np.atleast_1d(np.asarray(array)))
        if labels is not None and batch.labels is not None:
            labels.append(np.atleast_1d(batch.labels))
    return Raw(
        "data",
        {key: grown.finished() for key, grown in inputs.items()},
        None if labels is None else labels.finished(),
    )


_NAME = "iterable of batches"


def _one_batch(item: object, number: int, split: Split) -> Raw:
    """The arrays of an item; those of a sample with a batch of one."""
    name = f"batch {number}"
    if isinstance(item, Mapping):
        found = from_mapping(name, {str(key): to_array(value, name) for key, value in item.items()}, split)
        single = found.labels is not None and found.labels.ndim == 0
        return _with_batch(found) if single else found
    if isinstance(item, tuple | list) and not all(np.isscalar(part) for part in item):
        parts = [to_array(part, name) for part in item]
        if len(parts) == 1:
            return Raw(name, {"0": parts[0]}, None)
        found = Raw(name, {str(index): part for index, part in enumerate(parts[:-1])}, parts[-1])
        return _with_batch(found) if parts[-1].ndim == 0 else found
    return Raw(name, {"0": to_array(item, name)}, None)


def _with_batch(sample: Raw) -> Raw:
    labels = None if sample.labels is None else sample.labels[None]
    return Raw(sample.name, {key: np.asarray(array)[None] for key, array in sample.inputs.items()}, labels)


def _pictures(items: Iterator[object], reading: Reading) -> Raw:
    shelf, labels = Spool(reading.cache), Labels("data")
    for number, item in enumerate(items):
        found = _picture_in(item)
        if found is None:
            raise DataError(
                f"sample {number}",
                expected="an image, as in sample 0",
                found=type(item).__name__,
                way_out="give all samples the same parts",
            )
        name, encoded = _encoded(found, number)
        shelf.append(name, encoded)
        labels.append(_label_of(item))
    numbers, classes, notes = labels.finished()
    return from_listing("data", Listing(shelf, numbers, classes, notes), reading)


def _picture_in(item: object) -> object | None:
    """The picture of a sample, None where it holds none."""
    values = item.values() if isinstance(item, Mapping) else item if isinstance(item, (tuple, list)) else (item,)
    return next((value for value in values if _is_picture(value)), None)


def _is_picture(value: object) -> bool:
    if isinstance(value, (str, Path)):
        return Path(value).suffix.lower() in IMAGE_SUFFIXES
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes)
    return isinstance(value, bytes) or all(hasattr(value, name) for name in ("mode", "size", "save", "convert"))


def _encoded(picture: Any, number: int) -> tuple[str, bytes]:
    """What messages call a picture, and the bytes of its file."""
    if isinstance(picture, (str, Path)):
        try:
            return str(picture), Path(picture).read_bytes()
        except OSError:
            return str(picture), b""  # counts as damaged
    if isinstance(picture, Mapping):
        return str(picture.get("path") or f"sample {number}"), picture["bytes"]
    if isinstance(picture, bytes):
        return f"sample {number}", picture
    file = BytesIO()
    picture.save(file, "TIFF" if picture.mode in ("F", "CMYK") else "PNG")
    return f"sample {number}", file.getvalue()


def _label_of(item: object) -> Label:
    """The label of a sample: a number or several, or the name of a class; None where it has none."""
    label: Any = None
    if isinstance(item, Mapping):
        names = {str(key).lower(): key for key in item}
        known = next((names[name] for name in (*LABEL_NAMES, "class", "cls") if name in names), None)
        label = None if known is None else item[known]
    elif isinstance(item, (tuple, list)) and len(item) > 1:
        label = item[-1]
    if label is None or isinstance(label, str):
        return label
    array = to_array(label, "labels")
    return array if array.ndim else array.item()
