"""Decoded pictures that are kept: built once, checked, and the same for the next run."""

from pathlib import Path
from typing import Any

import numpy as np

from onnxadmm.train.data import cache
from tests.train.data.forms import DRAWN, digest, epoch, loaded


def test_a_cache_is_built_once_and_gives_the_same(reference: Path, tmp_path: Path, monkeypatch: Any) -> None:
    decoded: list[str] = []
    real = cache.decode
    monkeypatch.setattr(cache, "decode", lambda *a, name, **k: decoded.append(name) or real(*a, name=name, **k))
    plain = loaded(reference, memory_limit=0)
    for turn in range(2):
        data = loaded(reference, memory_limit=0, cache=tmp_path)
        assert digest(data) == digest(plain)
        for one, two in zip(epoch(plain), epoch(data), strict=True):
            assert np.array_equal(one[0], two[0])
        assert len(decoded) == len(DRAWN), turn
    (folder,) = tmp_path.iterdir()
    sums = np.memmap(folder / "sums", np.uint32, "r+")
    pixels = np.memmap(folder / "pixels", np.uint8, "r+")
    sums[3] = 0  # a run that was killed before it came to this one
    pixels[10] ^= 1  # and one whose bytes never reached the disk
    sums.flush()
    pixels.flush()
    for one, two in zip(epoch(plain), epoch(loaded(reference, memory_limit=0, cache=tmp_path)), strict=True):
        assert np.array_equal(one[0], two[0])
    assert len(decoded) == len(DRAWN) + 2
    loaded(reference, memory_limit=0, cache=tmp_path, resize=30)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_for_random_parts_keeps_whole_pictures(reference: Path, tmp_path: Path) -> None:
    data = loaded(reference, cache=tmp_path, augment="rrc24,flip", resize=28)
    first, again = (list(epoch(data, augment=True)) for _ in range(2))
    plain = list(epoch(loaded(reference, augment="rrc24,flip", resize=28), augment=True))
    for one, two, three in zip(first, again, plain, strict=True):
        assert np.array_equal(one[0], two[0])
        assert np.abs(one[0] - three[0]).mean() < 0.06  # of a smaller picture, so a little softer
    assert np.array_equal(*(next(epoch(each))[0] for each in (data, loaded(reference, resize=28))))
