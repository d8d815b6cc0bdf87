"""Shards of tar archives: all of a pattern, and each whole."""

from pathlib import Path

import pytest

from onnxadmm.errors import DataError
from onnxadmm.train.data.sources import read_source
from tests.train.data.forms import DRAWN, MADE, loaded


def test_shards_of_a_pattern_are_all_needed(tmp_path: Path) -> None:
    MADE.write_tar(DRAWN, tmp_path)
    (tmp_path / "shard-0000.tar").rename(tmp_path / "part-00.tar")
    with pytest.raises(DataError, match=r"part-01\.tar: expected a file"):
        read_source(str(tmp_path / "part-{00..01}.tar"))
    assert len(loaded(str(tmp_path / "part-{00..00}.tar"))) == len(DRAWN)


def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    MADE.write_tar(DRAWN, tmp_path)
    path = tmp_path / "shard-0000.tar"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"shard-0000\.tar|damaged"):
        read_source(path)
