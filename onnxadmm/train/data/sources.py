"""Reading data as they come: files, folders, arrays and iterables. What fits the model is decided elsewhere."""

import glob
import gzip
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.train.data.folders import LIST_SUFFIXES, list_folder, list_lines
from onnxadmm.train.data.names import Split, labels_beside, of_split
from onnxadmm.train.data.parquet import PARQUET_SUFFIXES, read_parquet
from onnxadmm.train.data.raw import MEMORY_LIMIT, Raw, Reading, from_listing, from_mapping, to_array
from onnxadmm.train.data.sequences import is_by_number, read_items
from onnxadmm.train.data.tars import TAR_SUFFIXES, list_tars

Array = NDArray[Any]

#: Larger arrays stay in their file, of which is read what is needed.
_MAPPED_FROM: Final = 256 << 20
_SHARD_SUFFIXES: Final = (*TAR_SUFFIXES, *PARQUET_SUFFIXES)

_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_source(source: object, *, reading: Reading | None = None, split: Split = "train") -> Raw:
    """Read any supported source.

    Args:
        source: a path (``.npz``; ``SAMPLES,LABELS`` or ``SAMPLES`` as ``.npy`` or in the IDX format; a folder of class
            folders, a list of images, tar archives, tables in the Parquet format), an ``(x, y)`` tuple, one array, a
            mapping of arrays, an iterable of batches (arrays, tuples or mappings) or of samples, or a data set that
            gives samples by number.
        reading: how pictures are read, and what may lie in memory.
        split: which part of an archive is read that holds both, as ``x_train`` and ``x_test``.

    Raises:
        DataError: whatever is missing, unreadable, empty or of no known kind.
    """
    reading = reading if reading is not None else Reading()
    if isinstance(source, str | Path):
        return _read_path(source, reading, split)
    if isinstance(source, Mapping):
        return from_mapping("data", {str(key): to_array(value, "data") for key, value in source.items()}, split)
    if _is_array(source):
        return Raw("data", {"0": to_array(source, "data")}, None)
    if isinstance(source, tuple) and len(source) >= 2 and _is_array(source[0]) and all(map(_is_column, source)):
        parts = [to_array(part, "data") for part in source]
        return Raw("data", {str(index): part for index, part in enumerate(parts[:-1])}, parts[-1])
    if isinstance(source, Iterable) or is_by_number(source):
        return read_items(source, reading, split)
    raise DataError(
        "data",
        expected="a path, arrays, an iterable of batches or samples, or a data set that gives samples by number",
        found=type(source).__name__,
        way_out="see the documentation of the data sources",
    )


def is_pictures(source: object) -> bool:
    """Whether a path holds pictures by its kind: they are divided and brought to a size as they are read."""
    return isinstance(source, str | Path) and (
        Path(source).is_dir() or Path(source).suffix.lower() in LIST_SUFFIXES or bool(_shards(str(source)))
    )


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") or (hasattr(value, "numpy") and hasattr(value, "shape"))


def _is_column(value: object) -> bool:
    """Whether a part of ``(x, y)`` holds something of every sample: an array, or a list of numbers."""
    return _is_array(value) or (isinstance(value, list) and bool(value) and all(map(np.isscalar, value)))


def _read_path(source: str | Path, reading: Reading, split: Split) -> Raw:
    text = str(source)
    path = Path(text)
    if shards := _shards(text):
        return _read_shards(shards, text, reading, split)
    if path.is_dir():
        return from_listing(text, list_folder(path), reading)
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return from_listing(text, list_lines(path), reading)
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


def _shards(text: str) -> list[Path]:
    """The tar archives or Parquet tables that a path names: one, those of a pattern, or those of a folder."""
    path = Path(text)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        shards = [file for file in files if file.name.lower().endswith(_SHARD_SUFFIXES)]
        return shards if not any(file.is_dir() for file in files) else []
    if not text.lower().endswith(_SHARD_SUFFIXES):
        return []
    if path.is_file():
        return [path]
    if span := re.search(r"\{(\d+)\.\.(\d+)\}", text):
        numbers = range(int(span[1]), int(span[2]) + 1)
        return [_existing(Path(text.replace(span[0], str(number).zfill(len(span[1]))))) for number in numbers]
    found = sorted(Path(match) for match in glob.glob(text))
    return found or [_existing(path)]


def _read_shards(paths: Sequence[Path], name: str, reading: Reading, split: Split) -> Raw:
    tables = [path for path in paths if path.suffix.lower() in PARQUET_SUFFIXES]
    if tables and len(tables) < len(paths):
        raise DataError(
            name, expected="tar archives or Parquet tables", found="both", way_out="name the ones, as train-*.tar"
        )
    if not tables:
        return from_listing(name, list_tars(paths, name, spool=reading.cache), reading)
    table = read_parquet(paths, name, apart=reading.apart, split=split, limit=reading.memory_limit, spool=reading.cache)
    if table.pictures is None:
        return from_mapping(name, table.arrays, split)
    raw = from_listing(name, table.pictures, reading)
    return replace(raw, inputs={**raw.inputs, **table.arrays})


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
        array = np.load(_existing(path), mmap_mode=_mapping_of(path.stat().st_size), allow_pickle=False)
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


def _mapping_of(size: int) -> Literal["r"] | None:
    """How numpy opens a file of so many bytes: a large one is mapped."""
    return "r" if size >= _MAPPED_FROM else None


def _mapped(path: Path, archive: Any, name: str) -> Array:
    """An array of an archive, mapped from its file where it is large and lies there as it is."""
    entry = next((each for each in archive.zip.infolist() if each.filename == f"{name}.npy"), None)
    if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.file_size < _MAPPED_FROM:
        return np.asarray(archive[name])
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # of the lengths of name and extra field, behind which the array lies
        file.seek(entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))))
        head = (
            np.lib.format.read_array_header_1_0
            if np.lib.format.read_magic(file) == (1, 0)
            else (np.lib.format.read_array_header_2_0)
        )
        shape, fortran, dtype = head(file)
        if dtype.hasobject:
            raise ValueError("pickled objects")
        return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape, order="F" if fortran else "C")


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
            arrays = {name: _mapped(path, archive, name) for name in names}
    # RuntimeError: encrypted; NotImplementedError, which is one: an unknown compression; MemoryError: a lying header.
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError) as error:
        raise _unreadable(path, error, "an .npz file of plain arrays", "write it with numpy.savez") from error
    return from_mapping(str(path), {name: to_array(array, f"{path}, {name}") for name, array in arrays.items()}, split)
