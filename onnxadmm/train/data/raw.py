"""Data as they were read, before anything is known of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.train.data.cache import Cache
from onnxadmm.train.data.gallery import Column, Contents, Damage, Pictures, survey
from onnxadmm.train.data.listing import Listing
from onnxadmm.train.data.names import Split, label_name
from onnxadmm.train.data.pictures import Framing

Array = NDArray[Any]
IndexArray = NDArray[np.int64]

#: Most bytes of samples that are kept in memory, and of pictures that are decoded into it before the first step.
MEMORY_LIMIT = 4 << 30
PICTURES_LIMIT = 1 << 30
#: Share of the pictures that may be damaged.
MAX_BAD = 0.001


@dataclass(frozen=True)
class Raw:
    """Data as read.

    Attributes:
        name: what messages call it.
        inputs: arrays by name, or under position numbers ``"0"``, ``"1"``... when they came without names.
        labels: None without labels.
        classes: names of the classes when a folder gave them.
        notes: sentences on what was done while reading.
        label_name: name of the array that was taken for labels; None where they had none.
        order: numbers of the samples that are used, in their order; None: all of them as they stand.
        contents: digest of what each sample was made of, uint64 ``[N, 2]``, which divides the data; None: chance does.
    """

    name: str
    inputs: Mapping[str, Column]
    labels: Array | None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    label_name: str | None = None
    order: IndexArray | None = None
    contents: Contents | None = None


@dataclass(frozen=True)
class Reading:
    """How a source is read.

    Attributes:
        framing: how pictures become pixels.
        draws_parts: random parts of pictures will be asked for, not their middle alone.
        max_bad: share of the pictures that may be damaged, 0 to 1.
        cache: folder of decoded pictures; None: none.
        memory_limit: most bytes kept in memory; what is more goes to a temporary file, or is decoded when it is needed.
        apart: names of columns of tables that are arrays of their own: of the model's inputs, and the like.
    """

    framing: Framing = field(default_factory=Framing)
    draws_parts: bool = False
    max_bad: float = MAX_BAD
    cache: Path | None = None
    memory_limit: int = MEMORY_LIMIT
    apart: frozenset[str] = frozenset()


def to_array(value: object, name: str) -> Array:
    """Turn an array-like (torch tensors on the CPU included) into a numpy array of numbers.

    Raises:
        DataError: it holds something else, or is not an array at all.
    """
    for method in ("detach", "cpu"):
        if hasattr(value, method):
            value = getattr(value, method)()
    try:
        array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            name, expected="arrays of numbers", found=str(error)[:200], way_out="convert them to numpy arrays"
        ) from error
    if array.dtype.kind not in "biuf":
        raise DataError(name, expected="numbers", found=f"dtype {array.dtype}", way_out="convert them to numbers")
    return array


def from_mapping(name: str, arrays: Mapping[str, Array], split: Split) -> Raw:
    """Arrays by name, of which one may hold the labels.

    Raises:
        DataError: there is nothing beside the labels.
    """
    labels = label_name(arrays, split)
    inputs = {key: array for key, array in arrays.items() if key != labels}
    if not inputs:
        raise DataError(
            name,
            expected="arrays named like the model's inputs, or x",
            found=", ".join(arrays) or "nothing",
            way_out="name them so",
        )
    return Raw(name, inputs, None if labels is None else arrays[labels], label_name=labels)


def from_listing(name: str, listing: Listing, reading: Reading) -> Raw:
    """Pictures, of which each is read once to see what it is.

    Few and small ones are decoded into memory, others when they are needed.

    Raises:
        DataError: too many are damaged, or they cannot be used.
    """
    count = len(listing.shelf.names)
    damage = Damage(name, count, reading.max_bad)
    found = survey(listing.shelf, reading.framing, damage)
    cached = reading.cache is not None and reading.framing.size is not None
    cache = None
    if cached and reading.cache is not None:
        cache = Cache(reading.cache, reading.framing, found.contents, found.sizes, whole=reading.draws_parts)
    pictures = Pictures(listing.shelf, reading.framing, found, damage, cache=cache)
    column: Column = pictures
    order = found.order
    notes = [*listing.notes, *found.notes]
    if not reading.draws_parts and pictures.nbytes <= min(reading.memory_limit, PICTURES_LIMIT):
        column, whole = pictures.read(np.arange(count))
        order = order[whole[order]]
    else:
        notes.append(
            f"{count:,} images are decoded when a batch needs them"
            + ("." if cache is None else f", and kept in {cache.folder}.")
        )
    notes += [told] if (told := damage.describe()) else []
    if not len(order):
        raise DataError(name, expected="at least one image", found="none that is whole", way_out="give others")
    return Raw(name, {"0": column}, listing.labels, listing.classes, tuple(notes), order=order, contents=found.contents)
