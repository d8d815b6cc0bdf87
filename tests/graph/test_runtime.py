"""Loading for inference: what runs, and the sentence for what does not."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxadmm.errors import InputError, ModelFileError
from onnxadmm.graph import runtime as session_room
from onnxadmm.graph.model import to_proto
from onnxadmm.graph.runtime import open_session
from tests.bench.models import dense, from_text, relu


def test_session_computes_what_the_model_says() -> None:
    opened = open_session(relu())
    x = np.array([[-1, 2, -3, 4]], dtype=np.float32)
    assert opened.inputs == ("x",)
    assert opened.outputs == ("y",)
    np.testing.assert_array_equal(opened.run({"x": x})["y"], [[0, 2, 0, 4]])


def test_a_newer_ir_stamp_is_lowered_on_the_way_in_and_the_model_keeps_it() -> None:
    model = relu()
    model.ir.ir_version = 99
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(open_session(model).run({"x": x})["y"], x)
    assert model.ir.ir_version == 99


def test_an_opset_newer_than_the_runtime_is_one_sentence_with_both_numbers() -> None:
    with pytest.raises(ModelFileError) as caught:
        open_session(relu(opset=999))
    assert "found opset 999;" in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_operator_is_one_sentence_that_names_it_and_its_domain_and_the_way_out() -> None:
    model = from_text(
        '<ir_version: 9, opset_import: ["": 17, "mine": 1]>'
        "g (float[N, 4] x) => (float[N, 4] y) { y = mine.Frobnicate(x) }"
    )
    with pytest.raises(ModelFileError, match=r"Frobnicate of domain mine, which has none; give .* --custom-ops"):
        open_session(model)


def test_inputs_the_model_refuses_are_one_sentence_with_their_shape() -> None:
    opened = open_session(relu())
    with pytest.raises(ModelFileError, match=r"x \[2, 5\] float32") as caught:
        opened.run({"x": np.zeros((2, 5), np.float32)})
    assert "\n" not in str(caught.value)


def test_zero_threads_are_refused() -> None:
    with pytest.raises(InputError, match="threads: expected at least 1, found 0"):
        open_session(relu(), threads=0)


def test_a_model_too_big_for_one_message_goes_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense(8)
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    expected = open_session(model).run({"x": x})["y"]
    monkeypatch.setattr(session_room, "_MESSAGE_BYTES", 0)
    with open_session(replace(model, path=None)) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], expected)


def test_opening_leaves_the_model_as_it_was() -> None:
    model = dense(8)
    before = to_proto(model).SerializeToString(deterministic=True)
    open_session(model)
    assert to_proto(model).SerializeToString(deterministic=True) == before
    onnx.checker.check_model(to_proto(model))


def test_a_newer_opset_is_lowered_where_every_node_says_the_same_in_the_older_one() -> None:
    model = relu(opset=23)
    x = np.array([[-1, 2, -3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(open_session(model).run({"x": x})["y"], [[0, 2, 0, 4]])
    assert model.ir.opset_imports[""] == 23


def test_an_operator_the_runtime_does_not_know_is_run_as_written_by_the_reference_evaluator() -> None:
    model = from_text('<ir_version: 10, opset_import: ["": 24]> g (float[N, 4] x) => (float[N, 4] y) { y = Swish(x) }')
    x = np.linspace(-2, 2, 4, dtype=np.float32)[None]
    found = open_session(model, as_written=True).run({"x": x})["y"]
    np.testing.assert_allclose(found, x / (1 + np.exp(-x)), rtol=1e-5)
