"""Tables: columns of numbers and of token ids, and those that make no sense."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxadmm.errors import DataError
from onnxadmm.train.data.raw import Reading
from onnxadmm.train.data.sources import read_source


def table(folder: Path, **columns: Any) -> Path:
    pa = pytest.importorskip("pyarrow", reason="onnxadmm[parquet] reads tables")
    pq = importlib.import_module("pyarrow.parquet")
    pq.write_table(pa.table(columns), folder / "table.parquet", row_group_size=7)
    return folder / "table.parquet"


@pytest.mark.parametrize("limit", [100, 1 << 30])
def test_columns_of_numbers_and_of_token_ids_are_read(limit: int, tmp_path: Path) -> None:
    tokens = np.arange(200, dtype=np.int64).reshape(50, 4)
    path = table(tmp_path, input_ids=list(tokens), label=np.arange(50) % 3, note=["text"] * 50)
    raw = read_source(path, reading=Reading(memory_limit=limit))
    assert list(raw.inputs) == ["input_ids"]
    assert np.array_equal(np.asarray(raw.inputs["input_ids"]), tokens)
    assert raw.labels is not None
    assert raw.labels.tolist() == (np.arange(50) % 3).tolist()
    path = table(tmp_path, a=np.arange(9.0), w=np.ones(9), b=np.arange(9.0) * 2, y=np.arange(9))
    raw = read_source(path, reading=Reading(apart=frozenset({"w"})))
    assert np.asarray(raw.inputs["x"]).tolist() == [[n, 2.0 * n] for n in range(9)]
    assert set(raw.inputs) == {"x", "w"}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"input_ids": [[1, 2], [3]], "label": [0, 1]}, "pad them|one length"),
        ({"text": ["a", "b"], "label": [0, 1]}, "columns of numbers"),
        ({"a": [1.0, None], "label": [0, 1]}, "a value in every row"),
        ({"a": [b"x", b"y"], "b": [b"x", b"y"]}, "one column of images"),
        ({"image": [b"x", None], "label": [0, 1]}, "bytes of an image's file"),
    ],
)
def test_tables_that_make_no_sense_are_refused(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_source(table(tmp_path, **columns))
