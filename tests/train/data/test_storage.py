"""Decoded samples stay in memory up to the limit and go to a temporary file beyond it, the same values either way."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxadmm.errors import DataError
from onnxadmm.train.data.gallery import Pictures
from onnxadmm.train.data.raw import Reading
from onnxadmm.train.data.sources import read_source
from onnxadmm.train.data.storage import allocate, transposed_copy


def test_small_room_is_memory_and_large_room_a_file() -> None:
    assert not isinstance(allocate("data", (4, 8), np.uint8, limit=32), np.memmap)
    assert isinstance(allocate("data", (4, 8), np.uint8, limit=31), np.memmap)


def test_layout_changes_the_same_way_in_memory_and_in_a_file() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2500, 3, 4, 2), np.uint8)
    for limit in (0, images.nbytes):
        turned = transposed_copy("data", images, (0, 3, 1, 2), limit=limit)
        assert turned.flags.c_contiguous
        assert np.array_equal(turned, np.moveaxis(images, 3, 1))


def test_room_that_the_disk_has_not_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 0, 1 << 30))
    with pytest.raises(DataError, match=r"photos: expected 2 GiB .* limit of 1 GiB in memory and 1 GiB free"):
        allocate("photos", (2, 1 << 30), np.uint8, limit=1 << 30)


def test_folder_beyond_the_limit_is_decoded_when_it_is_needed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (30, 5, 6, 3), np.uint8)
    for index, image in enumerate(pixels):
        folder = tmp_path / ("cat" if index < 20 else "dog")
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    for limit in (0, pixels.nbytes):
        raw = read_source(tmp_path, reading=Reading(memory_limit=limit))
        assert isinstance(raw.inputs["0"], Pictures) == (limit == 0)
        assert np.array_equal(raw.inputs["0"][np.arange(30)], pixels)
        assert raw.labels is not None
        assert raw.labels.tolist() == [0] * 20 + [1] * 10
    (tmp_path / "cat" / "03.png").write_bytes(b"no image")
    (tmp_path / "cat" / "11.png").write_bytes(b"none either")
    with pytest.raises(DataError, match=r"03\.png"):
        read_source(tmp_path)
