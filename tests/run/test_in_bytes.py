"""Models in bytes: which samples they are measured with."""

import numpy as np
import onnx
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.graph.runtime import open_session


def test_ranges_are_those_of_samples_from_everywhere_in_the_data() -> None:
    """Data sorted by class are the rule for folders: the first samples are all of one."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 8] x) => (float[N, 4] y) { a = MatMul (x, first)  r = Relu (a)  y = MatMul (r, second) }"""
    )
    generator = np.random.default_rng(0)
    for name, shape in (("first", (8, 32)), ("second", (32, 4))):
        proto.graph.initializer.append(
            numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        )
    samples = generator.standard_normal((2000, 8)).astype(np.float32)
    samples[1200:] *= 20
    done = oa.quantize(proto, samples, recipe={"loss": "mse"}, max_drop=100, bench=False)
    answers = []
    for model in (oa.load(proto), done.model):
        with open_session(model) as session:
            answers.append(session.run({"x": samples[1200:]})["y"])
    before, after = answers
    assert np.square(after - before).sum() < 0.01 * np.square(before - before.mean(0)).sum()
