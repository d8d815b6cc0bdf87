"""Sessions in a child give what others give; refusals are told, and crashes and hangs end the child alone."""

import ast
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxadmm.runtime import apart, apart_child
from onnxadmm.runtime.apart import ApartSession, Child, CrashError, RefusedError
from onnxadmm.runtime.session import AS_WRITTEN, SessionError, open_inference

OPTIONS = {**vars(AS_WRITTEN), "spinning": AS_WRITTEN.spinning.name}


def network(operator: str = "Relu", **attributes: object) -> bytes:
    """One operator on images of 4 x 4."""
    sides = ["N", 1, 4, 4]
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, sides),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, "H", "W"]),
    ]
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialised: bytes = model.SerializeToString()
    return serialised


CRASHING = network("MaxPool", kernel_shape=[2, 2], strides=[0, 0])
FEED = {"x": np.arange(-8, 8, dtype=np.float32).reshape(1, 1, 4, 4)}


def test_a_session_apart_gives_what_one_in_this_process_gives() -> None:
    here, there = (open_inference(network(), AS_WRITTEN, apart=apart) for apart in (False, True))
    assert isinstance(there, ApartSession)
    for method in ("get_inputs", "get_outputs"):
        ours, theirs = getattr(here, method)(), getattr(there, method)()
        assert [(value.name, value.type, value.shape) for value in ours] == [
            (value.name, value.type, value.shape) for value in theirs
        ]
    np.testing.assert_array_equal(there.run(["y"], FEED)[0], here.run(["y"], FEED)[0])
    there.close()


def test_a_refusal_is_told_in_onnxruntimes_words_and_the_child_lives_on() -> None:
    with pytest.raises(SessionError, match=r"(?i)protobuf"):
        open_inference(b"no model", AS_WRITTEN, apart=True)
    session = ApartSession(network(), OPTIONS, libraries=[])
    generation = apart._child.generation
    with pytest.raises(RefusedError, match="rank"):
        session.run(["y"], {"x": np.ones(3, np.float32)})
    session.run(["y"], FEED)
    assert apart._child.generation == generation


@pytest.mark.slow
def test_a_session_goes_on_in_a_new_child_after_another_ones_crash() -> None:
    session = ApartSession(network(), OPTIONS, libraries=[])
    with pytest.raises(CrashError, match=r"a crash of onnxruntime \(SIGFPE\)"):
        ApartSession(CRASHING, OPTIONS, libraries=[]).run(["y"], FEED)
    np.testing.assert_array_equal(session.run(["y"], FEED)[0], np.maximum(FEED["x"], 0))


@pytest.mark.slow
def test_a_session_goes_on_in_a_new_child_when_the_system_has_ended_the_last_one() -> None:
    session = ApartSession(network(), OPTIONS, libraries=[])
    process = apart._child._process
    assert process is not None
    process.kill()
    process.wait()
    np.testing.assert_array_equal(session.run(["y"], FEED)[0], np.maximum(FEED["x"], 0))


@pytest.mark.slow
def test_what_takes_too_long_is_ended_and_said_to() -> None:
    child = Child()
    nodes = [helper.make_node("MatMul", [f"h{number}", "h0"], [f"h{number + 1}"]) for number in range(60)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1200, 1200]) for name in ("h0", "h60")]
    graph = helper.make_graph(nodes, "slow", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    child.order("open", 0, model.SerializeToString(), OPTIONS, [])
    with pytest.raises(CrashError, match=r"no end within 0\.5 s") as caught:
        child.order("run", 0, ["h60"], {"h0": np.eye(1200, dtype=np.float32)}, patience=0.5)
    assert caught.value.slow
    child.end()


def test_the_child_imports_nothing_of_this_package() -> None:
    """Its start is paid for by every command that needs it."""
    tree = ast.parse(Path(apart_child.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"onnxruntime"}


def test_a_model_on_disk_is_read_by_the_child(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.ModelProto.FromString(network()), path)
    session = ApartSession(path, OPTIONS, libraries=[])
    assert session.run(["y"], FEED)[0].max() == 7
