"""``mask``, ``shrink`` and ``verify``, as they are used together."""

from pathlib import Path

import numpy as np
import onnx

from onnxadmm.demo import DemoFiles
from tests.cli.conftest import accuracy_of, one_document
from tests.conftest import Command


def test_plan_mask_shrink_and_verify_fit_together(
    digits: DemoFiles, planned: Path, tmp_path: Path, command: Command
) -> None:
    masked, small = tmp_path / "masked.onnx", tmp_path / "small.onnx"
    assert command("mask", digits.model, planned, "-o", masked).status == 0
    assert command("shrink", digits.model, planned, "-o", small).status == 0
    original, zeroed, cut = (onnx.load(path) for path in (digits.model, masked, small))
    assert [node.op_type for node in zeroed.graph.node] == [node.op_type for node in original.graph.node]
    assert small.stat().st_size < 0.75 * digits.model.stat().st_size
    onnx.checker.check_model(cut, full_check=True)
    assert accuracy_of(masked, digits.test) == accuracy_of(small, digits.test)
    ran = command("verify", digits.model, small, planned)
    assert ran.status == 0
    assert "equal to the masked original" in ran.stdout


def test_verify_finds_a_tampered_model(digits: DemoFiles, planned: Path, tmp_path: Path, command: Command) -> None:
    small = tmp_path / "small.onnx"
    assert command("shrink", digits.model, planned, "--dense", "-o", small).status == 0
    proto = onnx.load(small)
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "conv3_bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(proto, small)
    ran = command("verify", digits.model, small, planned)
    assert ran.status == 4
    assert "c3" in ran.stderr
    ran = command("verify", digits.model, small, planned, "--json")
    assert ran.status == 4
    assert one_document(ran.stdout)["passed"] is False


def test_the_plan_of_a_compression_can_be_applied_to_the_original(
    digits: DemoFiles, compressed: Path, tmp_path: Path, command: Command
) -> None:
    small = tmp_path / "small.onnx"
    assert command("shrink", digits.model, compressed / "plan.json", "-o", small).status == 0
    assert command("verify", digits.model, small, compressed / "plan.json").status == 0
    cut, trained = (
        {tensor.name: tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}
        for path in (small, compressed / "model.onnx")
    )
    assert cut == trained
