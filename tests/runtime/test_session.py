"""The one place that opens sessions: what it is opened with, and what is raised."""

import ast
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxadmm.errors import InputError
from onnxadmm.runtime import session as session_room
from onnxadmm.runtime.session import (
    AS_WRITTEN,
    SessionError,
    SessionOptions,
    Spinning,
    failures,
    import_runtime,
    no_kernel,
    open_inference,
    session_options,
)

PACKAGE = Path(session_room.__file__).parents[1]


def one_node(operator: str, *, domain: str = "", opset: int = 17) -> onnx.ModelProto:
    """A model of one node on a vector of two."""
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])] for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], domain=domain)], "g", inputs, outputs)
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_session_runs_a_message_bytes_and_a_file_alike(tmp_path: Path) -> None:
    model = one_node("Neg")
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    x = np.array([1, -2], np.float32)
    for source in (model, model.SerializeToString(), path):
        for options in (SessionOptions(), AS_WRITTEN):
            np.testing.assert_array_equal(open_inference(source, options).run(None, {"x": x})[0], -x)


def test_every_option_reaches_onnxruntime() -> None:
    found = session_options(
        SessionOptions(
            threads=3,
            optimised=False,
            spinning=Spinning.NEVER,
            memory_pattern=False,
            memory_arena=False,
            prepacking=False,
        )
    )
    assert (found.intra_op_num_threads, found.inter_op_num_threads) == (3, 1)
    assert found.graph_optimization_level.name == "ORT_DISABLE_ALL"
    assert not found.enable_mem_pattern
    assert not found.enable_cpu_mem_arena
    assert found.get_session_config_entry("session.disable_prepacking") == "1"
    assert found.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    within = session_options(SessionOptions(spinning=Spinning.WHILE_RUNNING))
    assert within.get_session_config_entry("session.force_spinning_stop") == "1"


def test_what_does_not_load_is_a_session_error_on_one_line() -> None:
    with pytest.raises(SessionError) as caught:
        open_inference(b"no model", SessionOptions())
    assert "\n" not in str(caught.value)


def test_what_onnxruntime_raises_while_running_is_among_its_failures() -> None:
    opened = open_inference(one_node("Neg"), SessionOptions())
    for feed in ({"x": np.zeros(3, np.float32)}, {"x": np.zeros(2, np.int64)}, {}, {"z": np.zeros(2, np.float32)}):
        with pytest.raises(failures()):
            opened.run(None, feed)


@pytest.mark.parametrize(
    ("operator", "domain", "opset", "found"),
    [
        ("Frobnicate", "com.example", 17, "Frobnicate of domain com.example"),
        ("Frobnicate", "", 17, "Frobnicate of domain ai.onnx"),
        ("Frobnicate", "com.microsoft", 17, "Frobnicate of domain com.microsoft"),
    ],
)
def test_an_operator_without_kernel_is_named_with_its_domain(
    operator: str, domain: str, opset: int, found: str
) -> None:
    with pytest.raises(SessionError) as caught:
        open_inference(one_node(operator, domain=domain, opset=opset), SessionOptions())
    refusal = no_kernel("model.onnx", caught.value)
    assert refusal is not None
    assert f"found {found}, which has none;" in str(refusal)
    assert "--custom-ops" in refusal.way_out
    assert ("newer onnxruntime" in refusal.way_out) == (domain != "com.example")


def test_another_failure_is_not_taken_for_a_missing_kernel() -> None:
    with pytest.raises(SessionError) as caught:
        open_inference(b"no model", SessionOptions())
    assert no_kernel("model.onnx", caught.value) is None


def test_a_runtime_that_does_not_import_points_to_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="onnxadmm doctor"):
        import_runtime()


def test_a_runtime_without_content_points_to_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    with pytest.raises(InputError, match="InferenceSession"):
        import_runtime()


def test_sessions_are_opened_in_one_place_of_this_process_and_one_of_the_child() -> None:
    opening = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".InferenceSession", ".SessionOptions"))
    }
    assert opening == {"runtime/session.py", "runtime/apart_child.py"}
