"""samples/notebooks: committed without outputs, and each runs from its first cell to its last."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.shared import needs_training

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
NOTEBOOKS = sorted((SAMPLES / "notebooks").glob("*.ipynb"))
#: What the last words of a notebook must be about.
TOLD = {
    "calibrate_from_nowhere": "kept floats:",
    "compress_a_cnn": "batch 64:",
    "sweep_and_choose": "fewer multiply-accumulates, test accuracy",
}
TRAINING = {"compress_a_cnn"}


def test_there_are_the_notebooks_that_the_cookbook_lists() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(TOLD)
    page = (SAMPLES.parent / "docs" / "cookbook" / "index.md").read_text(encoding="utf-8")
    assert all(f"notebooks/{name}.ipynb)" in page for name in TOLD)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_is_valid_and_holds_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_training) if name in TRAINING else name for name in sorted(TOLD)]
)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "samples", ignore=shutil.ignore_patterns("__pycache__"))
    notebook = nbformat.read(SAMPLES / "notebooks" / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path / "samples" / "notebooks"}})
    client.execute()
    told = [output.text for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output]
    assert TOLD[name] in told[-1]
    if name == "calibrate_from_nowhere":
        shares = [float(line.split(": ")[1].split("%")[0]) for line in told[-2].splitlines()]
        assert shares[0] >= 95
        assert shares[0] > shares[1]
