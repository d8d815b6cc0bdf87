"""The pages of the cookbook and the tutorial: every block runs as it stands, and comes to what the page is for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samples.cookbook_models import TASKS
from tests.pages import ROOT, blocks_of, follow_page
from tests.shared import needs_training

PAGES = ROOT / "docs" / "cookbook"

#: What the names that a page's Python has defined must be in the end.
BARS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "classification": lambda names: names["accuracy"] >= 0.9,
    "segmentation": lambda names: names["accuracy"] >= 0.85,
    "detection": lambda names: names["hits"] >= 0.7 and names["error"] <= 1.5,
    "time_series": lambda names: names["explained"] >= 0.75,
    "text": lambda names: names["accuracy"] >= 0.85,
    "regression": lambda names: names["explained"] >= 0.8,
    "scikit_learn": lambda names: names["accuracy"] >= 0.85,
    "from_nowhere": lambda names: names["agreement"] >= 0.95,
}


def test_every_page_of_the_cookbook_is_followed() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(BARS) | {"index"}
    assert set(TASKS) == set(BARS) - {"scikit_learn"}
    for name in BARS:
        assert f"]({name}.md)" in (PAGES / "index.md").read_text(encoding="utf-8")


@pytest.mark.slow
@needs_training
@pytest.mark.parametrize("name", sorted(BARS))
def test_a_page_of_the_cookbook_runs_as_it_stands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_latency: None
) -> None:
    names = follow_page(PAGES / f"{name}.md", tmp_path, monkeypatch)
    assert BARS[name](names), names["printed"]
    report = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    assert report["verification"]["passed"]
    assert all(line["reached"] <= line["limit"] for line in report["budgets"])


@pytest.mark.slow
@needs_training
def test_the_tutorial_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_latency: None) -> None:
    page = ROOT / "docs" / "tutorial.md"
    # Its first two blocks install the package and show the demo, which has tests of its own; so has making a folder.
    assert [block.commands()[0][0] for block in blocks_of(page)[:3]] == ["make", "pip", "mkdir"]
    text = page.read_text(encoding="utf-8").replace("onnxadmm demo", "pip demo")
    copy = tmp_path / "tutorial.md"
    copy.write_text(text, encoding="utf-8")
    names = follow_page(copy, tmp_path / "root", monkeypatch, left_out={"make", "pip", "mkdir"})
    assert names["accuracy"] >= 0.95
    assert names["result"].verification.passed
    assert Path("small.onnx").exists()


def test_a_block_that_fails_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    for text, message in (
        ("```sh\nonnxadmm inspect missing.onnx\n```\n", "missing.onnx"),
        ("```sh\ncurl example.org\n```\n", "not known"),
        ("```python\nassert False, 'said so'\n```\n", "said so"),
        ("```sh\npython ../../samples/cookbook_models.py nothing\n```\n", "ended with 2"),
    ):
        page.write_text(text)
        root = tmp_path / message.replace(" ", "_")
        with pytest.raises(AssertionError, match=message):
            follow_page(page, root, monkeypatch)


def test_a_line_that_goes_on_is_one_command() -> None:
    block = blocks_of(PAGES / "segmentation.md")[0]
    assert [words[0] for words in block.commands()] == ["python", "onnxadmm"]
    assert "--retrain-epochs" in block.commands()[1]
