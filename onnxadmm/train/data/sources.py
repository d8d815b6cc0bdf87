"""Reading data as they come: files, folders, arrays and iterables. What fits the model is decided elsewhere."""

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.train.data.batches import concatenate
from onnxadmm.train.data.folders import Size, read_folder
from onnxadmm.train.data.names import Split, label_name, labels_beside, of_split

Array = NDArray[Any]

#: Most bytes of samples that are kept in memory.
MEMORY_LIMIT = 4 << 30

_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


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
    """

    name: str
    inputs: Mapping[str, Array]
    labels: Array | None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    label_name: str | None = None


def read_source(
    source: object,
    *,
    memory_limit: int = MEMORY_LIMIT,
    grey: bool = False,
    size: Size | None = None,
    split: Split = "train",
) -> Raw:
    """Read any supported source.

    Args:
        source: a path (``.npz``; ``SAMPLES,LABELS`` or ``SAMPLES`` as ``.npy`` or in the IDX format; a folder of class
            folders), an ``(x, y)`` tuple, one array, a mapping of arrays, or an iterable of batches (arrays, tuples or
            mappings).
        memory_limit: most bytes kept in memory; an iterable that takes more is refused, the decoded images of a folder
            go to a temporary file.
        grey: read images of folders with one channel instead of three.
        size: height and width that images of folders are brought to; None where the model leaves it open.
        split: which part of an archive is read that holds both, as ``x_train`` and ``x_test``.

    Raises:
        DataError: whatever is missing, unreadable, empty or of no known kind.
    """
    if isinstance(source, str | Path):
        return _read_path(source, grey=grey, size=size, split=split, limit=memory_limit)
    if isinstance(source, Mapping):
        return _from_mapping("data", {str(key): to_array(value, "data") for key, value in source.items()}, split)
    if _is_array(source):
        return Raw("data", {"0": to_array(source, "data")}, None)
    if isinstance(source, tuple) and len(source) >= 2 and all(_is_array(part) for part in source):
        parts = [to_array(part, "data") for part in source]
        return Raw("data", {str(index): part for index, part in enumerate(parts[:-1])}, parts[-1])
    if isinstance(source, Iterable):
        return _from_batches(source, memory_limit, split)
    raise DataError(
        "data",
        expected="a path, arrays, or an iterable of batches",
        found=type(source).__name__,
        way_out="see the documentation of the data sources",
    )


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") or (hasattr(value, "numpy") and hasattr(value, "shape"))


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


def _read_path(source: str | Path, *, grey: bool, size: Size | None, split: Split, limit: int) -> Raw:
    text = str(source)
    path = Path(text)
    if path.is_dir():
        folder = read_folder(path, grey=grey, size=size, limit=limit)
        return Raw(text, {"0": folder.images}, folder.labels, folder.classes, folder.notes)
    if path.suffix.lower() == ".npz":
        return _read_npz(_existing(path), split)
    if "," in text and not path.exists():
        names = [part.strip() for part in text.split(",")]
        if len(names) != 2:
            raise DataError(
                text, expected="SAMPLES,LABELS", found=f"{len(names)} names", way_out="give one file of each"
            )
        samples, labels = (_read_array(Path(name)) for name in names)
        return Raw(text, {"0": samples}, labels)
    samples = _read_array(path)
    beside = labels_beside(path) if path.suffix.lower() == ".npy" else None
    if beside is None:
        return Raw(text, {"0": samples}, None)
    return Raw(text, {"0": samples}, _read_array(beside), notes=(f"The labels are those of {beside}.",))


def is_divided(source: str | Path) -> bool:
    """Whether a source is an archive of training and test data, of which each is read where it is asked for."""
    path = Path(source)
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).stem for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return False
    return len(of_split(names, "train")) < len(set(names))


def _read_array(path: Path) -> Array:
    """One array, from an ``.npy`` or an IDX file."""
    if path.suffix.lower() != ".npy":
        return read_idx(path)
    try:
        array = np.load(_existing(path), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, error, "an .npy file of a plain array", "write it with numpy.save") from error
    return to_array(array, str(path))


def read_numbers(path: Path) -> Array:
    """Read numbers: an ``.npy`` file, or text with commas, spaces or ends of lines between them.

    Raises:
        DataError: no such file, or something else stands in it.
    """
    if path.suffix.lower() == ".npy":
        return _read_array(path)
    try:
        return np.array([float(word) for word in _existing(path).read_text(encoding="utf-8").replace(",", " ").split()])
    except ValueError as error:
        raise DataError(
            str(path), expected="numbers", found=str(error)[:200], way_out="write one number a line, or an .npy file"
        ) from error


def _unreadable(path: Path, error: Exception, expected: str, way_out: str) -> DataError:
    pickled = "pickle" in str(error).lower()
    return DataError(
        str(path),
        expected=expected,
        found="pickled objects, which are never loaded" if pickled else f"an unreadable file ({error})",
        way_out=f"{way_out} and arrays of numbers",
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(str(path), expected="a file", found="no such file", way_out="check the path")
    return path


def read_idx(path: Path) -> Array:
    """Read one IDX file (LeCun's format of MNIST), gzipped or not.

    Raises:
        DataError: no such file, not in this format, or cut short.
    """
    raw = _existing(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                raw = file.read(MEMORY_LIMIT + 1)
            if len(raw) > MEMORY_LIMIT:
                raise OSError(f"more than {MEMORY_LIMIT / 2**30:.3g} GiB when unpacked")
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                str(path), expected="a whole gzip file", found=str(error), way_out="download it again"
            ) from error
    dtype = _IDX_TYPES.get(raw[2]) if len(raw) >= 4 and raw[:2] == b"\0\0" else None
    if dtype is None:
        raise DataError(
            str(path),
            expected="an IDX file, an .npz or .npy file or a folder of class folders",
            found=f"a file that starts with {raw[:4].hex() or 'nothing'}",
            way_out="give IMAGES,LABELS in the IDX format, or another kind of source",
        )
    rank = raw[3]
    header = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", raw[4:header]) if len(raw) >= header else ()
    wanted = header + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if len(shape) != rank or len(raw) != wanted:
        raise DataError(
            str(path),
            expected=f"{wanted} bytes for the shape {list(shape)}",
            found=f"{len(raw)} bytes",
            way_out="download it again",
        )
    array = np.frombuffer(raw, dtype, offset=header).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_npz(path: Path, split: Split) -> Raw:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no zip archive")
        # Given a path, numpy leaves the file open where it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            # Archives of both parts are large: only one of them is read.
            names = of_split(archive.files, split)
            wanted = {f"{name}.npy" for name in names}
            unpacked = sum(entry.file_size for entry in archive.zip.infolist() if entry.filename in wanted)
            if unpacked > MEMORY_LIMIT + 2 * path.stat().st_size:
                raise ValueError(
                    f"{unpacked / 2**30:.3g} GiB when unpacked, at most {MEMORY_LIMIT / 2**30:.3g} are read"
                )
            arrays = {name: archive[name] for name in names}
    # RuntimeError: encrypted; NotImplementedError, which is one: an unknown compression; MemoryError: a lying header.
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError) as error:
        raise _unreadable(path, error, "an .npz file of plain arrays", "write it with numpy.savez") from error
    return _from_mapping(str(path), {name: to_array(array, f"{path}, {name}") for name, array in arrays.items()}, split)


def _from_mapping(name: str, arrays: Mapping[str, Array], split: Split) -> Raw:
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


def _from_batches(source: Iterable[object], limit: int, split: Split) -> Raw:
    inputs: dict[str, list[Array]] = {}
    labels: list[Array] = []
    size = 0
    for number, item in enumerate(source):
        batch = _one_batch(item, number, split)
        if number and (set(batch.inputs) != set(inputs) or (batch.labels is not None) != bool(labels)):
            raise DataError(
                f"batch {number}",
                expected=f"the inputs {', '.join(inputs)} {'with' if labels else 'without'} labels, as in batch 0",
                found=f"{', '.join(batch.inputs)} {'with' if batch.labels is not None else 'without'} labels",
                way_out="give all batches the same parts",
            )
        parts = [*batch.inputs.values(), *([] if batch.labels is None else [batch.labels])]
        size += sum(part.nbytes for part in parts)
        if size > limit:
            raise DataError(
                "iterable of batches",
                expected=f"at most {limit / 2**30:.3g} GiB, since part of it is held out and so all is kept in memory",
                found=f"more after {number + 1} batches",
                way_out="give fewer samples, uint8 images, or a folder or file",
            )
        for key, array in batch.inputs.items():
            # A copy: loaders may fill the same buffer again.
            inputs.setdefault(key, []).append(np.array(array))
        if batch.labels is not None:
            labels.append(np.array(batch.labels))
    if not inputs:
        raise DataError("iterable of batches", expected="at least one batch", found="none", way_out="give data")
    try:
        joined = {key: concatenate(arrays) for key, arrays in inputs.items()}
        return Raw("data", joined, concatenate(labels) if labels else None)
    except ValueError as error:
        raise DataError(
            "iterable of batches", expected="samples of one shape", found=str(error)[:200], way_out="give equal shapes"
        ) from error


def _one_batch(item: object, number: int, split: Split) -> Raw:
    name = f"batch {number}"
    if isinstance(item, Mapping):
        return _from_mapping(name, {str(key): to_array(value, name) for key, value in item.items()}, split)
    if isinstance(item, tuple | list) and not all(np.isscalar(part) for part in item):
        parts = [to_array(part, name) for part in item]
        if len(parts) == 1:
            return Raw(name, {"0": parts[0]}, None)
        return Raw(name, {str(index): part for index, part in enumerate(parts[:-1])}, parts[-1])
    return Raw(name, {"0": to_array(item, name)}, None)
