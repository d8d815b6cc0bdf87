"""Tables in the Parquet format: columns of numbers, of token ids, of encoded images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.train.data.listing import Labels, Listing
from onnxadmm.train.data.names import Split, label_name
from onnxadmm.train.data.shelves import Spool
from onnxadmm.train.data.storage import Growing

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[Any]

PARQUET_SUFFIXES: Final = (".parquet", ".pq")
_CLASS_NAMES: Final = ("class", "class_name", "cls")
#: Rows that are read together, and letters of a file that are.
_ROWS: Final = 64
_BUFFER: Final = 1 << 20


@dataclass(frozen=True)
class Table:
    """What a table holds.

    Attributes:
        pictures: of its column of images, with their labels; None without one.
        arrays: its columns of numbers by name, labels included where there are no pictures.
    """

    pictures: Listing | None
    arrays: Mapping[str, Array]


def read_parquet(
    paths: Sequence[Path], name: str, *, apart: frozenset[str], split: Split, limit: int, spool: Path | None
) -> Table:
    """Read tables with the same columns, some rows at a time.

    Images, the bytes of their files, are copied to a temporary file, since Parquet cannot be read in any order. Columns
    of one number are joined to ``x`` where there are neither images nor columns of lists.

    Args:
        paths: of the tables.
        name: what messages call the data.
        apart: names of columns that are arrays of their own.
        split: which labels are meant.
        limit: most bytes of a column in memory; a longer one goes to a temporary file.
        spool: folder of the temporary file of images; None: the usual one.

    Raises:
        DataError: pyarrow is missing, a file cannot be read, or it has columns of another kind.
    """
    schema = _schema(paths[0])
    images = [field.name for field in schema if _is_image(field.type)]
    names = [field.name for field in schema if field.name not in images]
    labels = label_name(names, split) or next((each for each in names if each.lower() in _CLASS_NAMES), None)
    if len(images) > 1:
        raise DataError(
            name, expected="one column of images", found=", ".join(images), way_out="write the others to another file"
        )
    wanted = [*images, *(each for each in names if _is_numbers(schema.field(each).type) or each == labels)]
    if not set(wanted) - {labels}:
        raise DataError(
            name,
            expected="columns of numbers, of lists of numbers, or of images as the bytes of their files",
            found=", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns",
            way_out="write such columns",
        )
    if images:
        return _with_images(paths, name, wanted, images[0], labels, limit, spool)
    grown = {each: Growing(f"{name}, column {each}", limit=limit) for each in wanted}
    for batch in _batches(paths, wanted):
        for each in wanted:
            grown[each].append(_numbers(batch.column(each), f"{name}, column {each}"))
    arrays = {each: found.finished() for each, found in grown.items()}
    single = [each for each in wanted if arrays[each].ndim == 1 and each not in apart and each != labels]
    if len(single) == len(set(wanted) - {labels} - apart) and single:
        arrays = {each: array for each, array in arrays.items() if each not in single} | {
            "x": np.stack([arrays[each] for each in single], axis=1)
        }
    if labels is not None and labels.lower() in _CLASS_NAMES:
        arrays["labels"] = arrays.pop(labels)
    return Table(None, arrays)


def _with_images(
    paths: Sequence[Path],
    name: str,
    wanted: Sequence[str],
    images: str,
    labels: str | None,
    limit: int,
    spool: Path | None,
) -> Table:
    shelf, told = Spool(spool), Labels(name)
    others = {each: Growing(f"{name}, column {each}", limit=limit) for each in wanted if each not in (images, labels)}
    for batch in _batches(paths, wanted):
        given = [None] * batch.num_rows if labels is None else batch.column(labels).to_pylist()
        for cell, label in zip(batch.column(images).to_pylist(), given, strict=True):
            path, encoded = (cell.get("path"), cell["bytes"]) if isinstance(cell, dict) else (None, cell)
            if encoded is None:
                raise DataError(
                    f"{name}, column {images}",
                    expected="the bytes of an image's file in every row",
                    found=f"none in row {len(shelf.names)}",
                    way_out="write the images into the table",
                )
            shelf.append(f"row {len(shelf.names)}" + (f", {path}" if path else ""), encoded)
            told.append(label)
        for each, grown in others.items():
            grown.append(_numbers(batch.column(each), f"{name}, column {each}"))
    numbers, classes, notes = told.finished()
    arrays = {each: grown.finished() for each, grown in others.items() if len(shelf.names)}
    return Table(Listing(shelf, numbers, classes, notes), arrays)


def _schema(path: Path) -> "pa.Schema":
    with _opened(path) as file:
        return file.schema_arrow


def _batches(paths: Sequence[Path], columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for path in paths:
        with _opened(path) as file:
            missing = set(columns) - set(file.schema_arrow.names)
            if missing:
                raise DataError(
                    str(path),
                    expected=f"the columns {', '.join(columns)}, as in {paths[0].name}",
                    found=f"no {', '.join(sorted(missing))}",
                    way_out="write all files alike",
                )
            try:
                yield from file.iter_batches(batch_size=_ROWS, columns=list(columns), use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error


def _opened(path: Path) -> Any:
    """A Parquet file, of which little is read ahead."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            str(path), expected="pyarrow, which reads Parquet", found="none", way_out="pip install 'onnxadmm[parquet]'"
        ) from error
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        str(path), expected="a Parquet file", found=f"an unreadable file ({str(error)[:200]})", way_out="write it anew"
    )


def _is_image(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_image(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_numbers(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numbers(column: "pa.Array", name: str) -> Array:
    """A column of numbers, or of lists of them that are equally long."""
    if column.null_count:
        raise DataError(name, expected="a value in every row", found="rows without one", way_out="fill or remove them")
    try:
        found = np.asarray(column.to_pylist() if hasattr(column, "flatten") and column.type.num_fields else column)
    except ValueError as error:
        raise DataError(
            name, expected="lists of one length", found="lists of several", way_out="pad them to one length"
        ) from error
    if found.dtype.kind not in "biuf":
        raise DataError(name, expected="numbers", found=str(column.type), way_out="write numbers")
    kind = column.type
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return found.astype(kind.to_pandas_dtype(), copy=False)
