"""Folders of images as people have them: of many sizes, depths, orders and kinds of pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onnxadmm.errors import DataError
from onnxadmm.train.data.pictures import Framing
from onnxadmm.train.data.raw import Raw, Reading
from onnxadmm.train.data.sources import read_source


def read(path: Path, *, grey: bool = False, size: tuple[int, int] | None = None) -> Raw:
    return read_source(path, reading=Reading(framing=Framing(grey, size)))


def images(found: Raw) -> NDArray[Any]:
    (column,) = found.inputs.values()
    return column[np.arange(len(column))]


def labels(found: Raw) -> list[int]:
    assert found.labels is not None
    return found.labels.tolist()  # type: ignore[no-any-return]


def write(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """Grey levels that rise from left to right, in three channels."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


@pytest.mark.parametrize("shape", [(40, 40), (20, 60), (60, 20), (21, 33), (8, 9), (10, 10)])
def test_images_of_any_size_are_brought_to_that_of_the_model_and_it_is_said(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    write(tmp_path / "a" / "one.png", ramp(*shape))
    write(tmp_path / "b" / "two.png", ramp(10, 10))
    found = read(tmp_path, size=(10, 10))
    assert images(found).shape == (2, 10, 10, 3)
    resized = [note for note in found.notes if "centre-cropped to 10x10" in note]
    assert len(resized) == (shape != (10, 10))


def test_the_middle_is_kept_and_the_shorter_side_fits(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one.png", ramp(10, 30))
    found = read(tmp_path, size=(10, 10))
    np.testing.assert_array_equal(images(found)[0], ramp(10, 30)[:, 10:20])


def test_shrinking_averages_instead_of_skipping_pixels(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    write(tmp_path / "a" / "one.png", stripes)
    assert np.abs(images(read(tmp_path, size=(16, 16))).astype(int) - 127).max() < 20


def test_images_of_different_sizes_are_refused_where_the_model_is_open(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one.png", ramp(10, 10))
    write(tmp_path / "a" / "two.png", ramp(10, 12))
    with pytest.raises(DataError, match=r"expected 10x10 pixels as a/one\.png, found 12x10"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("names", "ordered", "said"),
    [
        (["10", "2", "1"], ("1", "2", "10"), True),
        (["class10", "class2", "class1"], ("class1", "class2", "class10"), True),
        (["02", "10", "01"], ("01", "02", "10"), False),
        (["cat", "bird", "ant2"], ("ant2", "bird", "cat"), False),
        (["a10", "b2"], ("a10", "b2"), False),
    ],
)
def test_numbered_classes_are_in_the_order_of_their_numbers(
    tmp_path: Path, names: Sequence[str], ordered: tuple[str, ...], said: bool
) -> None:
    for name in names:
        write(tmp_path / name / "one.png", ramp(4, 4))
    found = read(tmp_path)
    assert found.classes == ordered
    assert any("order of their numbers" in note for note in found.notes) == said


def test_images_one_folder_deeper_and_of_any_suffix_are_found(tmp_path: Path) -> None:
    write(tmp_path / "a" / "images" / "one.png", ramp(4, 4))
    write(tmp_path / "a" / "two.PNG", ramp(4, 4))
    Image.fromarray(ramp(4, 4)).save(tmp_path / "a" / "three.jfif", "JPEG")
    write(tmp_path / "b" / "images" / "four.png", ramp(4, 4))
    assert labels(read(tmp_path)) == [0, 0, 0, 1]


def test_images_in_deeper_folders_are_found_and_links_upwards_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a" / "p" / "q" / "one.png", ramp(8, 8))
    write(tmp_path / "b" / "two.png", ramp(8, 8))
    (tmp_path / "a" / "p" / "q" / "up").symlink_to(tmp_path / "a")
    assert labels(read(tmp_path)) == [0, 1]


def test_a_folder_without_images_says_what_else_was_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.xyz").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 folders without images\. 2 files are no images by their name.*a/one\.xyz"):
        read(tmp_path)


def test_class_folders_inside_of_a_single_one_are_found(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "train" / name / "one.png", ramp(4, 4))
    assert read(tmp_path).classes == ("a", "b")


def test_a_class_without_images_keeps_its_number_and_is_named(tmp_path: Path) -> None:
    for name in ("a", "c"):
        write(tmp_path / name / "one.png", ramp(4, 4))
    (tmp_path / "b").mkdir()
    found = read(tmp_path)
    assert labels(found) == [0, 2]
    assert any("class folders b of" in note for note in found.notes)


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        (np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8), "png"),
        (np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8), "tiff"),
        (np.linspace(0, 65535, 64).astype(np.int32).reshape(8, 8), "tiff"),
        (np.linspace(0, 1, 64).astype(np.float32).reshape(8, 8), "tiff"),
        (np.linspace(0, 255, 64).astype(np.float32).reshape(8, 8), "tiff"),
    ],
)
@pytest.mark.parametrize("grey", [True, False])
def test_pixels_that_are_no_bytes_are_scaled_and_never_cut_off(
    tmp_path: Path, pixels: NDArray[Any], suffix: str, grey: bool
) -> None:
    write(tmp_path / "a" / f"one.{suffix}", pixels)
    found = read(tmp_path, grey=grey)
    expected = np.linspace(0, 255, 64).reshape(8, 8)
    for channel in range(1 if grey else 3):
        np.testing.assert_allclose(images(found)[0, ..., channel], expected, atol=1)
    assert found.notes


@pytest.mark.parametrize("values", [(-3.0, 1.0), (0.0, 4000.0)])
def test_floats_of_an_unknown_range_are_refused_with_it(tmp_path: Path, values: tuple[float, float]) -> None:
    write(tmp_path / "a" / "one.tiff", _of(values))
    with pytest.raises(DataError, match=f"values from {values[0]:g} to {values[1]:g}.*--scale"):
        read(tmp_path)


def _of(values: tuple[float, float]) -> NDArray[np.float32]:
    return np.linspace(*values, 16, dtype=np.float32).reshape(4, 4)


def test_images_of_no_class_are_counted_and_may_be_listed(tmp_path: Path) -> None:
    write(tmp_path / "one.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match=r"found images that are in none: 1; .* a \.txt file with their paths"):
        read(tmp_path)


def test_a_list_with_semicolons_is_refused_by_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path;label\none.png;1\n")
    with pytest.raises(DataError, match=r"a path and a label in every line.*found 'path;label'"):
        read(tmp_path / "list.csv")
