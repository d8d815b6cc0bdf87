"""Lists of paths and labels, and what labels of pictures are: numbers, several of them, or names of classes."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxadmm.errors import DataError
from onnxadmm.train.data.listing import Labels
from onnxadmm.train.data.sources import read_source

PICTURE = Image.new("RGB", (4, 4))


@pytest.mark.parametrize("kind", ["one.txt", "one.csv", "three.csv", "none.csv"])
def test_lists_with_other_lines_are_refused(kind: str, tmp_path: Path) -> None:
    text = {"one.txt": "a.jpg 0\njust words\n", "one.csv": "a.jpg,0\nb.jpg\n", "three.csv": "1,2,3\n", "none.csv": ""}
    (tmp_path / kind).write_text(text[kind])
    with pytest.raises(DataError, match="path and a label"):
        read_source(tmp_path / kind)


@pytest.mark.parametrize(
    ("head", "said"),
    [("image,colour", "labels by one of the names.*columns image, colour"), ("pic,label", "paths by one of the names")],
)
def test_columns_of_other_names_are_named(head: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"{head}\na.png,0\n")
    with pytest.raises(DataError, match=said):
        read_source(tmp_path / "list.csv")


def finished(*given: Any) -> tuple[Any, tuple[str, ...] | None, tuple[str, ...]]:
    labels = Labels("data")
    for label in given:
        labels.append(label)
    return labels.finished()


@pytest.mark.parametrize(
    ("given", "expected", "dtype"),
    [
        (["0", "2", "10", "1"], [0, 2, 10, 1], np.int64),
        (["0.0", "2.0", "10.0", "1.0"], [0, 2, 10, 1], np.int64),
        (["0.2", "9", "10.5", "-6e-1"], [0.2, 9, 10.5, -0.6], np.float64),
        ([0.2, 0.9, 1.7, -0.6], [0.2, 0.9, 1.7, -0.6], np.float64),
        ([3, 1, True, np.int64(2).item()], [3, 1, 1, 2], np.int64),
        (["1" + "0" * 30, "2"], [1e30, 2], np.float64),
        ([[0.5, 1], np.array([2, 3])], [[0.5, 1], [2, 3]], np.float64),
    ],
)
def test_numbers_stay_what_they_are_however_they_are_written(given: list[Any], expected: Any, dtype: type) -> None:
    labels, classes, notes = finished(*given)
    assert labels.tolist() == expected
    assert (labels.dtype, classes, notes) == (dtype, None, ())


def test_names_beside_numbers_make_all_of_them_names_and_it_is_said() -> None:
    labels, classes, notes = finished("0.5", "unknown", "12", "0.5")
    assert classes == ("0.5", "12", "unknown")
    assert labels.tolist() == [0, 2, 1, 0]
    assert "'unknown' is no number: 0.5, 12, unknown" in notes[0]


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_nothing_is_no_label(missing: Any) -> None:
    assert finished(missing, missing) == (None, None, ())
    with pytest.raises(DataError, match="a label for every image, or for none, found 1 of 3 without one"):
        finished("0", missing, "1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[1, 2], [1, 2, 3]], r"label 1: expected numbers of shape \[2\], as before, found numbers of shape \[3\]"),
        ([["a", "b"]], "expected numbers, found dtype <U1"),
        ([[1, 2], 3], "found one number, and several"),
    ],
)
def test_pictures_have_equally_many_numbers(given: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        finished(*given)


@pytest.mark.parametrize("kind", ["csv", "tsv", "txt", "tar", "parquet", "tuples", "mappings"])
def test_numbers_beside_pictures_are_read_from_every_source(kind: str, tmp_path: Path) -> None:
    given = [0.25, 1.5, -3.0, 0.125]
    names = [f"{number}.png" for number in range(len(given))]
    for name in names:
        PICTURE.save(tmp_path / name)
    source: Any = tmp_path / f"data.{kind}"
    if kind in ("csv", "tsv", "txt"):
        mark = {"csv": ",", "tsv": "\t", "txt": " "}[kind]
        source.write_text("\n".join(f"{name}{mark}{label}" for name, label in zip(names, given, strict=True)))
    elif kind == "tar":
        with tarfile.open(source, "w") as archive:
            for name, label in zip(names, given, strict=True):
                archive.add(tmp_path / name, f"folder/{name}")
                told = json.dumps({"label": label}).encode()
                entry = tarfile.TarInfo(f"folder/{Path(name).stem}.json")
                entry.size = len(told)
                archive.addfile(entry, io.BytesIO(told))
    elif kind == "parquet":
        table = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        cells = [{"bytes": (tmp_path / name).read_bytes(), "path": name} for name in names]
        parquet.write_table(table.table({"image": cells, "label": given}), source)
    elif kind == "tuples":
        source = [(PICTURE, label) for label in given]
    else:
        source = [{"image": PICTURE, "label": np.float32(label)} for label in given]
    found = read_source(source)
    assert found.classes is None
    assert found.labels is not None
    assert found.labels.tolist() == given


def test_vectors_beside_pictures_are_read() -> None:
    found = read_source([(PICTURE, np.array([number, 0.5])) for number in range(3)])
    assert found.labels is not None
    assert found.labels.tolist() == [[0, 0.5], [1, 0.5], [2, 0.5]]
