"""Lists of paths and labels: lines that are none are refused."""

from pathlib import Path

import pytest

from onnxadmm.errors import DataError
from onnxadmm.train.data.sources import read_source


@pytest.mark.parametrize("kind", ["one.txt", "one.csv", "three.csv", "none.csv"])
def test_lists_with_other_lines_are_refused(kind: str, tmp_path: Path) -> None:
    text = {"one.txt": "a.jpg 0\njust words\n", "one.csv": "a.jpg,0\nb.jpg\n", "three.csv": "1,2,3\n", "none.csv": ""}
    (tmp_path / kind).write_text(text[kind])
    with pytest.raises(DataError, match="path and a label"):
        read_source(tmp_path / kind)
