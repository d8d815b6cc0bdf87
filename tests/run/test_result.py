"""What a run gives back: it saves what a run writes, and shows itself in dicts, tables and notebooks."""

import json
import sys
import types
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import InputError, OutputError
from onnxadmm.report.layers import LayerLine
from onnxadmm.report.reading import read_report

NAMES = {"model.onnx", "plan.json", "report.html", "report.json", "report.md", "history.jsonl"}


@pytest.fixture(scope="module")
def samples(digits: DemoFiles) -> Any:
    with np.load(digits.training) as archive:
        return archive["images"][:128]


def calibrated(digits: DemoFiles, samples: Any, out: Path | None = None, **named: Any) -> oa.Compressed:
    given = {"budget": {"params": 0.5}, "calibration": {"effort": "quick"}, "bench": False, **named}
    return oa.compress(digits.model, calibrate=samples, preprocessing={"scale": 1 / 16}, out=out, **given)


@pytest.fixture(scope="module")
def result(digits: DemoFiles, samples: Any) -> oa.Compressed:
    return calibrated(digits, samples)


def test_a_saved_result_is_what_the_run_would_have_written(
    digits: DemoFiles, samples: Any, result: oa.Compressed, tmp_path: Path
) -> None:
    result.save(tmp_path / "saved")
    written = calibrated(digits, samples, tmp_path / "written")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == NAMES
    for name in ("model.onnx", "plan.json", "history.jsonl"):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "written" / name).read_bytes()
    saved, wrote = (read_report(tmp_path / name) for name in ("saved", "written"))
    assert saved.after == wrote.after == written.after
    assert saved.budgets == wrote.budgets
    assert saved.after.file_bytes == (tmp_path / "saved" / "model.onnx").stat().st_size
    assert oa.Plan.from_json((tmp_path / "saved" / "plan.json").read_text()) == result.plan


def test_a_result_with_pruned_connections_is_saved_sparsely(digits: DemoFiles, samples: Any, tmp_path: Path) -> None:
    budget = oa.Budget(params=0.6, connections=0.1, size=0.7)
    result = calibrated(digits, samples, budget=budget)
    result.save(tmp_path)
    file_bytes = (tmp_path / "model.onnx").stat().st_size
    assert file_bytes < 0.6 * result.model.file_bytes  # as it lay in memory its weights were dense
    report = read_report(tmp_path)
    assert report.after.file_bytes == file_bytes
    assert [line.reached for line in report.budgets if line.kind == "size"] == [file_bytes]
    calibrated(digits, samples, budget=budget, sparse=False).save(tmp_path / "dense")
    assert (tmp_path / "dense" / "model.onnx").stat().st_size == result.model.file_bytes


def test_other_forms_are_saved_as_the_run_would_have_written_them(
    digits: DemoFiles, samples: Any, tmp_path: Path
) -> None:
    calibrated(digits, samples, int8=True, fp16=True).save(tmp_path / "saved")
    calibrated(digits, samples, tmp_path / "written", int8=True, fp16=True)
    forms = {"model.int8.onnx", "model.fp16.onnx"}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == NAMES | forms
    for name in forms:
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "written" / name).read_bytes()
    saved, wrote = (read_report(tmp_path / name) for name in ("saved", "written"))
    assert saved.variants == wrote.variants


def test_a_saved_model_runs(result: oa.Compressed, samples: Any, tmp_path: Path) -> None:
    result.save(tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": (samples[:, None] / np.float32(16)).astype(np.float32)})
    assert logits.shape == (128, 10)


def test_an_older_result_is_replaced_only_by_force(result: oa.Compressed, tmp_path: Path) -> None:
    result.save(tmp_path)
    with pytest.raises(OutputError, match="expected a folder without a result"):
        result.save(tmp_path)
    result.save(tmp_path, force=True)
    assert {path.name for path in tmp_path.iterdir()} == NAMES


def test_a_result_that_was_written_is_saved_elsewhere_and_not_over_itself(
    digits: DemoFiles, samples: Any, tmp_path: Path
) -> None:
    written = calibrated(digits, samples, tmp_path / "one")
    written.save(tmp_path / "two")
    assert (tmp_path / "one" / "model.onnx").read_bytes() == (tmp_path / "two" / "model.onnx").read_bytes()
    with pytest.raises(OutputError):
        written.save(tmp_path / "one", force=True)


def test_a_dict_has_all_that_the_file_has(result: oa.Compressed, tmp_path: Path) -> None:
    found = result.to_dict()
    assert found == result.report.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["layers"] == result.layers == [asdict(line) for line in result.report.layers]
    assert all(isinstance(layer, dict) for layer in result.layers)
    result.save(tmp_path)
    file = json.loads((tmp_path / "report.json").read_text())
    assert {name: value for name, value in file.items() if name != "after"} == {
        name: value for name, value in found.items() if name != "after"
    }


def test_layers_are_rows_of_a_table_where_pandas_is_there(
    result: oa.Compressed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = lambda rows, columns: (rows, columns)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    rows, columns = result.to_dataframe()
    assert rows == result.layers
    assert columns == [item.name for item in fields(LayerLine)]


def test_without_pandas_one_sentence_says_so(result: oa.Compressed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"expected pandas to be installed.*`pip install pandas`, or take to_dict\(\)"):
        result.to_dataframe()


def test_a_notebook_shows_a_table_of_it(result: oa.Compressed) -> None:
    assert result._repr_html_() == result.report._repr_html_()
    assert "124,778" in result._repr_html_()


# -- who listens ---------------------------------------------------------------------------------------------


def test_a_callback_hears_of_a_run(digits: DemoFiles, samples: Any) -> None:
    heard: list[object] = []
    calibrated(digits, samples, progress=heard.append)
    assert oa.Stage("analyse", None) in heard
    assert any(isinstance(event, oa.Note) for event in heard)
    assert any(isinstance(event, oa.Stage) and event.name == "calibrate" for event in heard)


def test_true_shows_the_run_and_false_does_not(
    digits: DemoFiles, samples: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated(digits, samples, progress=False)
    assert capsys.readouterr() == ("", "")
    calibrated(digits, samples, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert "taken for scores of classes" in said.err


def test_quantisation_tells_it_likewise(digits: DemoFiles, samples: Any) -> None:
    heard: list[object] = []
    oa.quantize(digits.model, samples, preprocessing={"scale": 1 / 16}, bench=False, progress=heard.append)
    assert oa.Stage("read data", None) in heard
