"""Where data stand: names inside of archives, files beside each other, both parts in one archive."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxadmm.errors import DataError
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.data.names import Split
from onnxadmm.train.data.sources import is_divided, read_source
from onnxadmm.train.losses import Loss
from onnxadmm.train.prepare.signature import signature_of
from tests.train.graphs import mlp, random

X, Y = random([4, 6]), np.array([0, 3, 1, 2])


def load(source: object, **more: Any) -> Any:
    return load_data(source, signature=signature_of(mlp()), loss=Loss(), **more)


@pytest.mark.parametrize(
    ("samples", "labels"),
    [
        ("x", "y"),
        ("X", "y"),
        ("Images", "Labels"),
        ("x_train", "y_train"),
        ("X_train", "Y_train"),
        ("arr_0", "arr_1"),
        ("images_train", "labels_train"),
    ],
)
def test_usual_names_in_an_archive_are_known(tmp_path: Path, samples: str, labels: str) -> None:
    np.savez(tmp_path / "data.npz", **{samples: X, labels: Y})
    data = load(tmp_path / "data.npz")
    assert data.labels.tolist() == Y.tolist()
    np.testing.assert_array_equal(data.inputs["x"], X)


def test_arrays_that_differ_in_case_alone_are_both_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, X=2 * X, y=Y)
    raw = read_source(tmp_path / "data.npz")
    np.testing.assert_array_equal(raw.inputs["x"], X)
    np.testing.assert_array_equal(raw.inputs["X"], 2 * X)
    np.testing.assert_array_equal(load(tmp_path / "data.npz").inputs["x"], X)


def test_suffixes_may_be_upper_case(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    (tmp_path / "data.npz").rename(tmp_path / "DATA.NPZ")
    assert load(tmp_path / "DATA.NPZ").has_labels
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "X.NPY")
    np.save(tmp_path / "y.npy", Y)
    assert load(tmp_path / "X.NPY").has_labels


@pytest.mark.parametrize(("split", "first"), [("train", 0), ("test", 3)])
def test_both_parts_of_an_archive_are_read_where_they_are_asked_for(tmp_path: Path, split: Split, first: int) -> None:
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=X, y_train=Y, x_test=X[::-1], y_test=(Y[::-1] + 1) % 4)
    labels = load(path, split=split).labels
    assert labels[0] == first
    assert is_divided(path)


def test_an_archive_of_one_part_is_not_divided(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x_test=X, y_test=Y)
    assert not is_divided(tmp_path / "data.npz")
    assert load(tmp_path / "data.npz", split="test").has_labels


@pytest.mark.parametrize(
    ("samples", "labels"),
    [
        ("X.npy", "y.npy"),
        ("x_train.npy", "y_train.npy"),
        ("train-images.npy", "train-labels.npy"),
        ("data.npy", "labels.npy"),
        ("digits.npy", "digits_labels.npy"),
        ("digits.npy", "digits-y.npy"),
    ],
)
def test_labels_beside_a_file_of_samples_are_found_and_said(tmp_path: Path, samples: str, labels: str) -> None:
    np.save(tmp_path / samples, X)
    np.save(tmp_path / labels, Y)
    data = load(tmp_path / samples)
    assert data.labels.tolist() == Y.tolist()
    assert any(labels in note for note in data.notes)


def test_two_files_may_be_named(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", X)
    np.save(tmp_path / "two.npy", Y)
    assert load(f"{tmp_path}/one.npy,{tmp_path}/two.npy").labels.tolist() == Y.tolist()


def test_samples_without_labels_beside_them_have_none(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "z.npy", Y)
    assert read_source(tmp_path / "x.npy").labels is None


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match="pickled objects, which are never loaded"):
        read_source(tmp_path / "x.npy")
