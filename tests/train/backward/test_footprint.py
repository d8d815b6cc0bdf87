"""The estimate of training's memory: counted by hand on a small graph, and close to what a process really takes."""

import subprocess
import sys

import onnx
import pytest
from onnx import parser

from onnxadmm.train.backward.footprint import peak_bytes
from onnxadmm.train.engine import Engine

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[10] x) => (float[10] y)
<float[10] w, float[20] c, float[20] d, float[4,5] v, float[20] e, int64[2] s>
{
   c = Concat <axis: int = 0> (x, w)
   d = Relu (c)
   v = Reshape (d, s)
   e = Flatten (v)
   y = Slice (e, s, s)
}
"""

VIEWED = """
<ir_version: 8, opset_import: ["" : 17]>
viewed (float[100] x) => (float[1] y)
<float[100] d>
{
   d = Relu (x)
   u = ReduceSum (d)
   y = Flatten (u)
}
"""


def test_peak_is_the_largest_sum_of_values_that_live_together() -> None:
    # x, w, s and y are held or put out: 40 + 40 + 16. At Relu c and d live beside them: 80 + 80.
    assert peak_bytes(filled(CHAIN)) == 40 + 40 + 16 + 160


def test_views_take_no_memory_but_keep_what_they_show() -> None:
    doubled = CHAIN.replace("e = Flatten (v)", "k = Concat <axis: int = 0> (c, c)\n   e = Flatten (v)")
    # c stays until Concat, d lives on through v, k is recorded nowhere and nobody reads it.
    assert peak_bytes(filled(doubled)) == 40 + 40 + 16 + 160


def test_value_without_a_recorded_shape_counts_as_the_largest_read() -> None:
    graph = filled(CHAIN)
    del graph.value_info[:]
    assert peak_bytes(graph) == 40 + 40 + 16 + 40 + 40


def filled(text: str) -> onnx.GraphProto:
    model = parser.parse_model(text)
    computed = {name for node in model.graph.node for name in node.output}
    for value in list(model.graph.value_info):
        if value.name not in computed:
            model.graph.input.append(value)
            model.graph.value_info.remove(value)
    return model.graph


def test_a_value_is_as_large_as_a_view_of_it_that_is_recorded() -> None:
    # x and d, of 400 bytes each, and at ReduceSum what it makes, of which only the view has a shape.
    assert peak_bytes(filled(VIEWED)) == 400 + 400 + 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
@pytest.mark.parametrize("network", ["relu()", "convolutions()"])
def test_estimate_is_close_to_what_a_process_takes(network: str, engine: Engine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, engine, network], capture_output=True, text=True, check=True, timeout=120
    )
    estimated, grown = map(int, done.stdout.split())
    assert 0.7 * grown < estimated < 1.2 * grown


_MEASURE = """
import sys
import numpy as np
from onnx import helper
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.backward.footprint import peak_bytes
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import model_of, random
from tests.train.lowering.lowered import around, finished, one

def relu():
    return finished(around([one("Relu")]), 144), 20_000, (2, 6, 6)

def convolutions():
    # Every gradient of a weight could wait for the end, and what it is made from with it.
    nodes, weights, value = [], {}, "x"
    for depth in range(10):
        weights[f"w{depth}"] = random([16, 16, 3, 3], seed=depth, scale=0.1)
        nodes.append(helper.make_node("Conv", [value, f"w{depth}"], [f"c{depth}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Tanh", [f"c{depth}"], [f"t{depth}"]))
        value = f"t{depth}"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    weights["last"] = random([16, 3], seed=99)
    nodes.append(helper.make_node("MatMul", ["flat", "last"], ["logits"]))
    return model_of(nodes, inputs={"x": ["N", 16, 24, 24]}, outputs=["logits"], weights=weights), 256, (16, 24, 24)

model, batch, shape = eval(sys.argv[2])
trainer = OrtTrainer(model, loss=Loss(Task.MSE), batch_size=batch, threads=1, engine=sys.argv[1])
inputs = {"x": np.ones((batch, *shape), np.float32)}
labels = np.zeros((batch, 3), np.float32)

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
for _ in range(3):
    trainer.backward(Batch(inputs, labels, None, batch))
held = inputs["x"].nbytes + labels.nbytes + sum(a.nbytes for a in trainer.weights.values())
print(peak_bytes(trainer.artifacts.gradient.graph) - held, peak() - before)
"""
