"""``bench``, as it is used."""

from pathlib import Path

import pytest

from onnxadmm.demo import DemoFiles
from tests.cli.conftest import one_document
from tests.conftest import Command


@pytest.mark.slow
def test_bench_times_models_side_by_side(
    digits: DemoFiles, compressed: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(digits.model.parent)  # a long path is folded where figures of a busy machine are wide
    words = ("bench", digits.model.name, compressed / "model.onnx", "--seconds", "0.2", "--batch", "16")
    ran = command(*words)
    assert ran.status == 0
    assert "digits.onnx" in ran.stdout
    document = one_document(command(*words, "--json").stdout)
    assert [result["batch"] for result in document["results"]] == [1, 16]
