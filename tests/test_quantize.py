"""``quantize``, from Python and from the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import InputError, OptionError, OutputError
from tests.conftest import Command

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]


def test_digits_in_bytes_are_a_third_of_the_file_and_as_good(
    digits: DemoFiles, few_digits: Samples, command: Command, tmp_path: Path
) -> None:
    np.savez(tmp_path / "samples.npz", images=few_digits[0][:300], labels=few_digits[1][:300])
    np.savez(tmp_path / "test.npz", images=few_digits[0][300:], labels=few_digits[1][300:])
    words = ("quantize", digits.model, "--calibrate", tmp_path / "samples.npz", "--test", tmp_path / "test.npz")
    ran = command(*words, "--no-bench", "-o", tmp_path / "int8.onnx", "--json")
    assert ran.status == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["command"] == "quantize"
    assert report["after"]["test"]["value"] > report["before"]["test"]["value"] - 0.01
    assert report["before"]["macs"] == report["after"]["macs"]
    assert (tmp_path / "int8.onnx").stat().st_size < digits.model.stat().st_size / 3
    assert command(*words, "-o", tmp_path / "int8.onnx").status == 2  # it is there
    again = command(*words[:2], "--calibrate", words[3], "-o", tmp_path / "other.onnx", "--no-bench", "--narrow")
    assert again.status == 0
    assert "7 bits" in again.stderr
    assert "Not verified" not in again.stdout
    refused = command("quantize", tmp_path / "int8.onnx", "--calibrate", words[3], "-o", tmp_path / "third.onnx")
    assert refused.status == 2
    assert "in bytes already" in refused.stderr
    assert not (tmp_path / "third.onnx").exists()


def test_a_layer_that_bytes_break_keeps_floats(few_digits: Samples) -> None:
    """One input of a layer is hundreds of times the others, and says nothing: in bytes nothing else would be left."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 8] x) => (float[N, 4] y) {
          a = MatMul (x, first)  r = Relu (a)  b = MatMul (r, second)  s = Relu (b)  y = MatMul (s, third) }"""
    )
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in (("first", (8, 32)), ("second", (32, 32)), ("third", (32, 4)))
    }
    arrays["first"][:, 0] *= 300
    arrays["second"][0] = 0
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    samples = generator.standard_normal((400, 8)).astype(np.float32)
    done = oa.quantize(proto, samples, recipe={"loss": "mse"}, max_drop=1.0, bench=False)
    bare = oa.quantize(proto, samples, recipe={"loss": "mse"}, max_drop=100.0, bench=False)
    assert bare.floats == ()
    assert 0 < len(done.floats) < 5
    assert any("would cost too much, and kept floats" in note for note in done.report.simplified)
    assert "third_quantized" in done.model.ir.graph.initializers

    def error(model: Any) -> float:
        from onnxadmm.graph.runtime import open_session

        answers = []
        for each in (oa.load(proto), model):
            with open_session(each) as session:
                answers.append(session.run({"x": samples})["y"])
        return float(np.square(answers[1] - answers[0]).sum() / np.square(answers[0] - answers[0].mean(0)).sum())

    assert error(done.model) < 0.02 < 0.2 < error(bare.model)


def test_nothing_is_written_without_a_name_and_nothing_is_overwritten(digits: DemoFiles, tmp_path: Path) -> None:
    samples = np.zeros((8, 1, 8, 8), np.float32)
    with pytest.raises(OptionError, match="--max-drop: expected points from 0 to 100, or percent"):
        oa.quantize(digits.model, samples, max_drop=-1)
    with pytest.raises(OptionError, match=r"--max-drop: .* found '2 of 3'"):
        oa.quantize(digits.model, samples, max_drop="2 of 3")
    with pytest.raises(InputError, match="an output that is no input"):
        oa.quantize(digits.model, samples, out=digits.model, force=True)
    (tmp_path / "there.onnx").write_text("mine")
    with pytest.raises(OutputError):
        oa.quantize(digits.model, samples, out=tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_text() == "mine"
