"""The result of a run in bytes and in 16 bits as well: the files, and what the report says of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import ModelFileError, OptionError
from onnxadmm.report.reading import read_report
from onnxadmm.report.report import VariantLine
from onnxadmm.run import steps, variants
from tests.conftest import Command

pytestmark = pytest.mark.usefixtures("quick_latency")

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
#: What of a calibration takes long says nothing here.
QUICK = oa.CalibrationOptions("quick")
FILES = {
    "model.onnx",
    "model.int8.onnx",
    "model.fp16.onnx",
    "plan.json",
    "report.json",
    "report.md",
    "report.html",
    "history.jsonl",
}


def answers(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits through onnxruntime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(logits)


def variant_of(result: oa.Report, name: str) -> VariantLine:
    """The line of a form."""
    (line,) = (line for line in result.variants if line.name == name)
    return line


@pytest.fixture(scope="module")
def tested(digits: DemoFiles) -> Digits:
    """The test images and their labels."""
    with np.load(digits.test) as archive:
        images, labels = archive["images"], archive["labels"]
    return (images[:, None] / np.float32(16)).astype(np.float32), labels.astype(np.int64)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants") / "out"


@pytest.fixture(scope="module")
def result(digits: DemoFiles, few_digits: Digits, tested: Digits, out: Path, quick_latency: None) -> oa.Compressed:
    """A calibration to 30 % of the parameters, in both other forms as well."""
    return oa.compress(
        digits.model, calibrate=few_digits, test=tested, budget={"params": 0.3}, calibration=QUICK,
        out=out, int8=True, fp16=True,
    )  # fmt: skip


def test_the_file_in_bytes_runs_anywhere_and_is_as_good_as_the_run_has_measured(
    result: oa.Compressed, out: Path, tested: Digits
) -> None:
    assert {path.name for path in out.iterdir()} == FILES
    variant = variant_of(result, "int8")
    figures, path = variant.figures, out / "model.int8.onnx"
    assert (variant.name, figures.model.name) == ("int8", "model.int8.onnx")
    assert figures.file_bytes == path.stat().st_size < result.after.file_bytes / 2.5
    images, labels = tested
    scores = answers(path, images)
    assert figures.test is not None
    assert figures.test.value == float((scores.argmax(1) == labels).mean()) > 0.95
    graph = onnx.load(path).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    assert sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1 for tensor in graph.initializer) >= 5
    # It is the pruned network that was rounded, not another.
    floats = answers(out / "model.onnx", images)
    assert np.square(scores - floats).sum() < 0.01 * np.square(floats - floats.mean(0)).sum()
    assert result.after.macs == figures.macs
    assert result.after.heldout is not None
    assert figures.heldout is not None
    assert figures.heldout.samples == result.after.heldout.samples
    assert result.after.heldout.value - figures.heldout.value <= 0.003


def test_it_is_the_file_that_quantize_makes_of_the_result(
    result: oa.Compressed, out: Path, few_digits: Digits, tmp_path: Path
) -> None:
    oa.quantize(out / "model.onnx", few_digits, out=tmp_path / "again.onnx", bench=False)
    assert (tmp_path / "again.onnx").read_bytes() == (out / "model.int8.onnx").read_bytes()
    assert result.int8 is not None
    assert result.int8.sha256 == oa.load(out / "model.int8.onnx").sha256


def test_the_file_in_16_bits_answers_as_the_one_in_floats_and_its_error_is_told(
    result: oa.Compressed, out: Path, tested: Digits
) -> None:
    variant, path = variant_of(result, "fp16"), out / "model.fp16.onnx"
    assert variant.figures.file_bytes == path.stat().st_size < 0.56 * result.after.file_bytes
    for field in ("parameters", "macs"):
        assert getattr(variant.figures, field) == getattr(result.after, field)
    images, labels = tested
    scores, floats = answers(path, images), answers(out / "model.onnx", images)
    assert variant.figures.test is not None
    assert variant.figures.test.value == float((scores.argmax(1) == labels).mean())
    error = np.square(scores - floats).sum() / np.square(floats - floats.mean(0)).sum()
    (told,) = (sentence for sentence in variant.told if "the outputs differ" in sentence)
    assert 0 < error < 1e-5
    assert 0.2 * error < float(told.split(" by ")[1].split(" of ")[0]) < 5 * error
    assert result.fp16 is not None
    assert result.fp16.sha256 == oa.load(path).sha256


def test_all_four_are_timed_in_the_same_rounds(result: oa.Compressed) -> None:
    assert [variant.name for variant in result.variants] == ["int8", "fp16"]
    assert result.variants[0].latency != result.variants[1].latency
    for variant in result.variants:
        assert [line.batch for line in variant.latency] == [line.batch for line in result.latency] == [1, 64]
        for floats, other in zip(result.latency, variant.latency, strict=True):
            assert other.before == floats.after
            assert other.rounds == floats.rounds
            assert other.speedup_low <= other.speedup <= other.speedup_high


@pytest.mark.parametrize(("place", "begins"), [(0, "In bytes"), (1, "With weights in 16 bits")])
def test_every_table_has_its_column(
    place: int, begins: str, result: oa.Compressed, out: Path, command: Command
) -> None:
    variant = result.variants[place]
    assert read_report(out) == result.report
    size = f"{variant.figures.file_bytes / 1000:.2f} kB"
    shown = command("report", out).stdout
    for text in (shown, (out / "report.md").read_text(), (out / "report.html").read_text()):
        assert variant.name in text
        assert size in text
        assert f"{begins}, compared with floats: file" in " ".join(text.replace("\\", "").split())
    document = json.loads((out / "report.json").read_text())
    assert document["variants"][place]["figures"]["file_bytes"] == variant.figures.file_bytes
    assert document["options"][variant.name] is True
    assert f" --{variant.name}" in document["command"]


def test_where_bytes_are_slower_the_report_says_so_and_names_the_processor(result: oa.Compressed) -> None:
    variant = variant_of(result, "int8")
    slower = [line.batch for line in variant.latency if line.speedup_high < 0.98]
    said = [sentence for sentence in result.warnings if sentence.startswith("In bytes it is slower than in floats")]
    assert len(said) == bool(slower)
    for sentence in said:
        assert f"on this processor ({result.machine.simd}" in sentence
        assert all(f"times at batch {batch}" in sentence for batch in slower)


@pytest.mark.parametrize(("exact", "named"), [(True, "(AVX2)"), (False, "(AVX2 without VNNI)")])
def test_a_processor_without_vnni_is_called_so_where_bytes_are_slower(
    exact: bool, named: str, result: oa.Compressed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "byte_products_are_exact", lambda: exact)
    slow = replace(result.latency[0], speedup=0.5, speedup_low=0.4, speedup_high=0.6)
    machine, figures = replace(result.machine, simd="AVX2"), variant_of(result, "int8").figures
    (said,) = variants.losses_of("int8", figures, plain=result.after, latency=[slow], machine=machine)
    assert f"on this processor {named}, 2.00 times at batch 1" in said
    (said,) = variants.losses_of("fp16", figures, plain=result.after, latency=[slow], machine=machine)
    assert "(AVX2)" in said, "what multiplies bytes is nothing to floats"


@pytest.mark.slow
def test_nothing_is_written_without_a_folder_and_the_model_in_bytes_comes_back(
    digits: DemoFiles, few_digits: Digits, result: oa.Compressed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    again = oa.compress(
        digits.model, calibrate=few_digits, budget={"params": 0.3}, bench=False, int8=True, calibration=QUICK
    )
    assert list(tmp_path.iterdir()) == []
    assert again.int8 is not None
    oa.save(again.int8, tmp_path / "int8.onnx")
    np.testing.assert_array_equal(*(answers(tmp_path / "int8.onnx", few_digits[0]) for _ in range(2)))
    assert again.variants[0].latency == ()
    plain = oa.compress(digits.model, calibrate=few_digits, budget={"params": 0.3}, bench=False, calibration=QUICK)
    assert plain.int8 is None
    assert plain.variants == ()


@pytest.mark.slow
def test_a_result_that_is_mostly_zeros_may_be_larger_in_bytes_and_that_is_said(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path
) -> None:
    """Zeros are stored sparsely in floats, which bytes are not."""
    result = oa.compress(
        digits.model, calibrate=few_digits, budget={"params": 0.6, "connections": 0.1}, out=tmp_path / "out",
        bench=False, int8=True, calibration=QUICK,
    )  # fmt: skip
    figures = result.variants[0].figures
    assert figures.file_bytes == (tmp_path / "out" / "model.int8.onnx").stat().st_size
    assert figures.file_bytes > result.after.file_bytes
    assert any("In bytes the file is larger than in floats" in sentence for sentence in result.warnings)
    assert answers(tmp_path / "out" / "model.int8.onnx", few_digits[0]).shape == (len(few_digits[0]), 10)


@pytest.mark.slow
def test_weights_in_external_data_stay_there_in_16_bits_too(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path
) -> None:
    onnx.save(onnx.load(digits.model), tmp_path / "given.onnx", save_as_external_data=True, size_threshold=64)
    for single_file in (False, True):
        out = tmp_path / str(single_file)
        result = oa.compress(
            tmp_path / "given.onnx", calibrate=few_digits, budget={"params": 0.5}, calibration=QUICK, out=out,
            bench=False, int8=True, fp16=True, single_file=single_file,
        )  # fmt: skip
        data = {"model.onnx.data", "model.fp16.onnx.data"}
        assert {path.name for path in out.iterdir()} == FILES | (set() if single_file else data)
        sizes = [sum(path.stat().st_size for path in out.glob(f"model.{name}onnx*")) for name in ("", "int8.", "fp16.")]
        columns = (result.after, *(line.figures for line in result.variants))
        assert [column.file_bytes for column in columns] == sizes
        scores = [answers(out / f"model.{name}onnx", few_digits[0]) for name in ("", "fp16.")]
        np.testing.assert_allclose(scores[1], scores[0], atol=0.2)


# -- what is refused -----------------------------------------------------------------------------------------


def test_a_model_in_bytes_already_is_refused_before_anything_trains(
    result: oa.Compressed, out: Path, digits: DemoFiles, tmp_path: Path, command: Command
) -> None:
    words = ("--calibrate", digits.training, "--scale", 1 / 16, "--params", "0.9", "--out", tmp_path / "new")
    ran = command("compress", out / "model.int8.onnx", *words, "--int8")
    assert ran.status == 2
    assert "expected a model that onnxruntime can quantise, found one that is in bytes already" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_samples_that_are_made_up_say_nothing_of_ranges(digits: DemoFiles, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--int8: expected samples, .* found --calibrate none"):
        oa.compress(digits.model, calibrate="none", budget={"params": 0.9}, out=tmp_path / "out", int8=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_fails_at_the_end_leaves_no_file_in_bytes(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        assert (tmp_path / "out" / "unfinished" / "model.int8.onnx").exists()
        raise ModelFileError("m", expected="a", found="b", way_out="c")

    monkeypatch.setattr(steps, "write_report", fail)
    with pytest.raises(ModelFileError):
        oa.compress(
            digits.model,
            calibrate=few_digits,
            budget={"params": 0.3},
            out=tmp_path / "out",
            int8=True,
            calibration=QUICK,
        )
    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.slow
def test_a_result_without_bytes_takes_the_place_of_one_with_them(
    result: oa.Compressed, out: Path, digits: DemoFiles, few_digits: Digits, tmp_path: Path
) -> None:
    for path in out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "notes.txt").write_text("mine")
    oa.compress(
        digits.model,
        calibrate=few_digits,
        budget={"params": 0.5},
        out=tmp_path,
        bench=False,
        force=True,
        calibration=QUICK,
    )
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"model.int8.onnx", "model.fp16.onnx"} | {"notes.txt"}


# -- the command line ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_trains_ends_with_both_files(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    words = ("--scale", 1 / 16, "--epochs", 3, "--retrain-epochs", 2, "--batch-size", 64, "--test", digits.test)
    run = ("compress", digits.model, "--data", digits.training, "--params", "0.3", "--out", tmp_path / "out", *words)
    ran = command(*run, "--distillation", 0, "--int8")  # no teacher of the run's own
    assert ran.status == 0, ran
    assert (
        ran.stdout.splitlines()[-1]
        == f"{tmp_path / 'out' / 'model.int8.onnx'} runs likewise: the same network in int8."
    )
    assert "model.onnx, model.int8.onnx, report.html" in ran.stdout
    assert command("report", tmp_path / "out" / "report.json").stdout in ran.stdout
    bench = command("bench", tmp_path / "out" / "model.onnx", tmp_path / "out" / "model.int8.onnx", "--seconds", 0.1)
    assert bench.status == 0
