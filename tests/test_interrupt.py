"""Ctrl-C ends a process within a second, also one in the middle of a native call, and leaves nothing behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.child_process import command, environment
from onnxadmm.interrupt import ending_on_ctrl_c

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to a process of its own")

#: A loop of a network that takes minutes in one native call, told to the test just before.
NATIVE = """
import sys
from pathlib import Path
import numpy as np
from onnxadmm.graph.model import load
from onnxadmm.graph.runtime import open_session
from onnxadmm.interrupt import ending_on_ctrl_c
from onnxadmm.output import OutputFile
with ending_on_ctrl_c(0.5):
    with OutputFile(Path(sys.argv[2])) as output:
        session = open_session(load(sys.argv[1]), as_written=True)
        print("running", flush=True)
        session.run({"x": np.ones((1500, 1500), np.float32)})
print("done", flush=True)
"""


def slow_network(path: Path, *, apart: bool) -> None:
    """A hundred products of large matrices; with an operator that is run apart or without."""
    nodes = [helper.make_node("MatMul", [f"h{number}", "W"], [f"h{number + 1}"]) for number in range(100)]
    nodes[0].input[0] = "x"
    nodes.append(helper.make_node("LRN" if apart else "Relu", ["h100"], ["y"], **({"size": 1} if apart else {})))
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1500, 1500])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1500, 1500])],
        [numpy_helper.from_array(np.eye(1500, dtype=np.float32), "W")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True], ids=["in this process", "apart"])
def test_ctrl_c_ends_a_native_call_and_clears_away(apart: bool, tmp_path: Path) -> None:
    slow_network(tmp_path / "model.onnx", apart=apart)
    process = subprocess.Popen(
        [*command("-c", NATIVE), str(tmp_path / "model.onnx"), str(tmp_path / "out.onnx")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, _ = process.communicate(timeout=60)
    # 1.5 s are allowed; the rest is for a busy machine.
    assert time.monotonic() - began < 10
    assert b"done" not in out
    assert process.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_python_takes_notice_by_itself_where_it_can() -> None:
    def press() -> None:
        with ending_on_ctrl_c(30.0):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_stays() -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: taken.append(number))
    try:
        with ending_on_ctrl_c(0.1):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        assert taken == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
