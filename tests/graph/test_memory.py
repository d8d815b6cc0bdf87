"""Why weights are mapped on the level of the wire format: what loading and saving a large file takes in memory.

A library's own load parses the file, which then stands in memory twice: as bytes and as messages. Here the bytes stay
in the file, and count as this process's memory only as pages that the system takes back when it needs them.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc"),
]

#: Elements of a row and a column of each weight, and how many weights: 4 x 100 MB.
SIDE, COUNT = 5120, 4
WEIGHTS_MB = COUNT * SIDE * SIDE * 4 / 2**20

WRITE = f"""
import sys
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
arrays = [np.full(({SIDE}, {SIDE}), index + 0.5, np.float32) for index in range({COUNT})]
graph = helper.make_graph(
    [helper.make_node("MatMul", [f"x{{index}}", f"w{{index}}"], [f"x{{index + 1}}"]) for index in range({COUNT})],
    "large",
    [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["N", {SIDE}])],
    [helper.make_tensor_value_info("x{COUNT}", TensorProto.FLOAT, ["N", {SIDE}])],
    [numpy_helper.from_array(array, f"w{{index}}") for index, array in enumerate(arrays)],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])
"""

# resource.getrusage would not do: its peak begins with that of the process that started this one.
MEASURE = """
import sys
import onnx, onnx_ir
from onnxadmm.graph.model import load, save

def megabytes(kind):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))

before, own = megabytes("VmHWM"), megabytes("RssAnon")
model = {work}
print(megabytes("VmHWM") - before, megabytes("RssAnon") - own)
"""


def run(program: str, *words: str) -> str:
    """What a Python process of its own prints."""
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def growth(work: str, *paths: Path) -> tuple[float, float]:
    """MB by which the peak of a process grows with a piece of work, and what it then holds besides pages of files."""
    peak, held = map(float, run(MEASURE.format(work=work), *map(str, paths)).split())
    return peak, held


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 400 MB of weights."""
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    run(WRITE, str(path))
    return path


@pytest.mark.parametrize("library", ["onnx.load(sys.argv[1])", "onnx_ir.load(sys.argv[1])"])
def test_loading_a_large_file_takes_half_of_what_a_librarys_own_load_takes(library: str, large: Path) -> None:
    theirs, held_by_theirs = growth(library, large)
    ours, held_by_ours = growth("load(sys.argv[1])", large)
    assert theirs > 1.9 * WEIGHTS_MB
    assert held_by_theirs > 0.9 * WEIGHTS_MB
    assert ours < 0.55 * theirs
    assert held_by_ours < 0.1 * WEIGHTS_MB


def test_saving_a_large_file_holds_one_weight_at_a_time(large: Path, tmp_path: Path) -> None:
    written = [tmp_path / "theirs.onnx", tmp_path / "ours.onnx"]
    theirs, _ = growth("onnx.save(onnx.load(sys.argv[1]), sys.argv[2])", large, written[0])
    ours, _ = growth("save(load(sys.argv[1]), sys.argv[2])", large, written[1])
    assert theirs > 2.8 * WEIGHTS_MB
    assert ours < 1.1 * (1 + 1 / COUNT) * WEIGHTS_MB
