"""A recurrent network with time on the first axis of its input is not trained along time in silence."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxadmm as oa
from onnxadmm.errors import NotTrainableError
from onnxadmm.graph.model import load
from onnxadmm.train.prepare.time_major import refuse_time_major
from tests.samples_text import parse_sample
from tests.shared import needs_training

ZOO = Path(__file__).resolve().parents[2] / "zoo"
RECURRENT = sorted(
    path.stem for path in ZOO.glob("*.onnx") if path.stem.split("_")[-1] in ("lstm", "gru", "rnn", "crnn")
)
LSTM = "Y = LSTM <hidden_size = 8> (d, W, R) s = Squeeze (Y, one) y = MatMul (s, O)"
#: What stands in front of the recurrent layer, the type of the input, and which axis holds the samples.
TIME_FIRST = {
    "nothing": ("d = Identity (x)", "float[T, N, 6]", 1),
    "a fixed length": ("d = Identity (x)", "float[10, N, 6]", 1),
    "a single sample": ("d = Identity (x)", "float[T, 1, 6]", 1),
    "an embedding": ("d = Gather (E, x)", "int64[T, N]", 1),
    "a layer and its activation": ("a = MatMul (x, P) b = Add (a, C) d = Relu (b)", "float[T, N, 6]", 1),
    "features in the middle": ("d = Transpose <perm = [0, 2, 1]> (x)", "float[T, 6, N]", 2),
}
#: Networks with samples first, or of which nobody knows.
OTHERS = {
    "a transposition": ("d = Transpose <perm = [1, 0, 2]> (x)", "float[N, T, 6]"),
    "an embedding that is turned": ("e = Gather (E, x) d = Transpose <perm = [1, 0, 2]> (e)", "int64[N, T]"),
    "images read by columns": (
        "c = Conv (x, K) q = Squeeze (c, two) d = Transpose <perm = [2, 0, 1]> (q)",
        "float[N, 3, 4, 10]",
    ),
}


def network(front: str, kind: str) -> onnx.ModelProto:
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]> timed ({kind} x) => (float[a, b, 4] y)
        <float[1, 32, 6] W, float[1, 32, 8] R, float[8, 4] O, float[12, 6] E, float[6, 6] P, float[6] C,
        float[6, 3, 4, 1] K, int64[1] one = {{1}}, int64[1] two = {{2}}> {{ {front} {LSTM} }}"""
    )


@pytest.mark.parametrize("name", TIME_FIRST)
def test_time_on_the_first_axis_is_refused_in_a_sentence_that_names_both_axes(name: str) -> None:
    front, kind, axis = TIME_FIRST[name]
    sentence = rf"expected samples on axis 0, found time there, along which LSTM \(Y\) runs, and samples on axis {axis}"
    with pytest.raises(NotTrainableError, match=sentence):
        refuse_time_major(load(network(front, kind)))


@pytest.mark.parametrize("name", OTHERS)
def test_samples_on_the_first_axis_are_not_refused(name: str) -> None:
    refuse_time_major(load(network(*OTHERS[name])))


@pytest.mark.parametrize("name", RECURRENT)
def test_no_exported_network_is_refused(name: str) -> None:
    refuse_time_major(load(ZOO / f"{name}.onnx"))


@needs_training
def test_such_a_network_is_pruned_and_proven_but_not_compressed() -> None:
    front, kind, _ = TIME_FIRST["nothing"]
    model = load(network(front, kind))
    plan = oa.rank(model, ratio=0.3)
    assert oa.verify(model, oa.shrink(model, plan), plan).passed
    data = np.zeros((16, 10, 6), np.float32)
    with pytest.raises(NotTrainableError, match="plan, shrink, verify and bench take it as it is"):
        oa.compress(model, data=(data, np.zeros(16, np.int64)), budget={"params": 0.5})
