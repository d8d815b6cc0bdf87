"""Class folders and lists of pictures: which there are, and of which class."""

import csv
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from onnxadmm.errors import DataError
from onnxadmm.train.data.listing import IMAGE_SUFFIXES, Labels, Listing, in_order, left_out
from onnxadmm.train.data.names import LABEL_NAMES
from onnxadmm.train.data.shelves import Files, Names

LIST_SUFFIXES: Final = frozenset({".csv", ".tsv", ".lst", ".txt"})
#: What stands between the columns of a list that has some.
_MARKS: Final = {".csv": ",", ".tsv": "\t"}
_PATH_COLUMNS: Final = ("path", "file", "filename", "filepath", "image", "image_path", "image_id", "img", "name")
_LABEL_COLUMNS: Final = (*LABEL_NAMES, "class", "class_name", "class_id", "cls", "category")
#: Files that are named where many are left out.
_NAMED: Final = 5


def list_folder(path: Path) -> Listing:
    """List the images of class folders, ``CLASS/NAME.jpg`` or deeper.

    Class folders are in alphabetical order; names that differ in a number alone are in the order of their numbers.

    Raises:
        DataError: there are no images.
    """
    path = _folder_of_classes(path)
    classes, notes = in_order(_folders(path))
    names, labels, others, count = Names(), array("q"), list[str](), 0
    for index, name in enumerate(classes):
        for file in _files_in(path / name):
            shown = file.relative_to(path).as_posix()
            if file.suffix.lower() in IMAGE_SUFFIXES:
                names.append(shown)
                labels.append(index)
            else:
                others += [shown] if count < _NAMED else []
                count += 1
    if not names:
        loose = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
        raise DataError(
            str(path),
            expected="a folder of class folders with images",
            found=f"images that are in none: {loose}"
            if loose
            else " ".join([f"{len(classes)} folders without images.", *left_out(others, count)]).rstrip("."),
            way_out="arrange the images as CLASS/NAME.jpg, or give a .txt file with their paths, labelled or not",
        )
    found = np.array(labels, np.int64)
    there = np.bincount(found, minlength=len(classes))
    empty = [name for name, number in zip(classes, there, strict=True) if not number]
    notes += [f"No images in the class folders {', '.join(empty)} of {path}."] if empty else []
    return Listing(Files(path, names), found, tuple(classes), (*notes, *left_out(others, count)))


def list_lines(path: Path) -> Listing:
    """List the images that stand in a file, a path and a label in each line, or a path alone.

    In a ``.csv`` file commas stand between them, in a ``.tsv`` file tabs, and a first line may name the columns;
    elsewhere the label is the last word of a line. Paths are those from the folder of the file. Labels are numbers, or
    names of classes.

    Raises:
        DataError: there are no lines, or one has other parts.
    """
    names, labels = Names(), Labels(str(path))
    for shown, label in _rows_of(path) if path.suffix.lower() in _MARKS else _words_of(path):
        names.append(shown)
        labels.append(label)
    if not names:
        raise DataError(
            str(path), expected="lines of a path and a label", found="none", way_out="write e.g. cats/1.jpg,0"
        )
    numbers, classes, notes = labels.finished()
    return Listing(Files(path.parent, names), numbers, classes, notes)


def _rows_of(path: Path) -> Iterator[tuple[str, str | None]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = (row for row in csv.reader(file, delimiter=_MARKS[path.suffix.lower()]) if row)
        first = next(rows, [])
        place, other = 0, 1 if len(first) > 1 else None
        head = [cell.strip().lower() for cell in first]
        named, labelled = (_first_of(names, head) for names in (_PATH_COLUMNS, _LABEL_COLUMNS))
        is_picture = _suffix(first[0]) in IMAGE_SUFFIXES if first else False
        if named is not None:
            place, other = named, labelled
            if labelled is None and len(head) == 2:  # what else could the other one be
                raise _no_column(path, first, "the labels", _LABEL_COLUMNS)
        elif labelled is not None and not is_picture:
            raise _no_column(path, first, "the paths", _PATH_COLUMNS)
        elif len(first) > 2 or (len(first) == 1 and not is_picture):
            raise _no_row(path, ",".join(first))
        elif first:
            yield first[0].strip(), None if other is None else first[1].strip()
        for row in rows:
            if len(row) != len(first):
                raise _no_row(path, ",".join(row))
            yield row[place].strip(), None if other is None else row[other].strip()


def _first_of(names: Sequence[str], head: Sequence[str]) -> int | None:
    return next((head.index(name) for name in names if name in head), None)


def _no_column(path: Path, head: Sequence[str], what: str, names: Sequence[str]) -> DataError:
    return DataError(
        str(path),
        expected=f"a column of {what} by one of the names {', '.join(names)}",
        found=f"the columns {', '.join(cell.strip() for cell in head)}",
        way_out="name it so in the first line",
    )


def _words_of(path: Path) -> Iterator[tuple[str, str | None]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            if not line.strip():
                continue
            whole = line.strip()
            if _suffix(whole) in IMAGE_SUFFIXES:
                yield whole, None
                continue
            words = whole.rsplit(None, 1)
            if len(words) != 2 or _suffix(words[0]) not in IMAGE_SUFFIXES:
                raise _no_row(path, whole)
            yield words[0], words[1]


def _suffix(shown: str) -> str:
    return Path(shown.strip()).suffix.lower()


def _no_row(path: Path, found: str) -> DataError:
    return DataError(
        str(path),
        expected="a path and a label in every line, or a first line that names the columns path and label",
        found=repr(found[:80]),
        way_out="write e.g. cats/1.jpg,0 in a .csv file, or cats/1.jpg 0 in a .txt file",
    )


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _folder_of_classes(path: Path) -> Path:
    """The folder itself, or its only folder where the class folders stand in that one."""
    names = _folders(path)
    if len(names) == 1 and not any(file.suffix.lower() in IMAGE_SUFFIXES for file in (path / names[0]).iterdir()):
        inside = path / names[0]
        if len(_folders(inside)) > 1:
            return inside
    return path


def _files_in(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The files of a class, those of folders in it included; links to a folder above are not followed."""
    here = (*above, folder.resolve())
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield entry
        elif entry.resolve() not in here:
            yield from _files_in(entry, here)
