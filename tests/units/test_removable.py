"""Simplifying is taken back where less of the model could go afterwards, and the run says so."""

from pathlib import Path

import numpy as np
import pytest

import onnxadmm as oa
from onnxadmm.graph.model import Model, load
from onnxadmm.graph.simplify import Simplified
from onnxadmm.units.removable import frees_less, removable_parameters
from onnxadmm.units.units import find_units
from tests.samples_text import parse_sample
from tests.shared import needs_training

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
    plain (float[N,6] x) => (float[N,3] y)
    <float[6,16] W1, float[16] B1, float[16,3] W2>
    {{ m = MatMul (x, W1)
      a = Add (m, B1)
      h = {operator} (a)
      y = MatMul (h, W2) }}"""


def network(operator: str) -> Model:
    return load(parse_sample(NETWORK.format(operator=operator)))


def test_what_could_go_is_all_but_one_unit_of_each_group() -> None:
    assert removable_parameters(find_units(network("Relu"))) == 15 * (6 + 1 + 3)
    assert removable_parameters(find_units(network("Softmax"))) == 0


def test_a_model_that_locks_more_frees_less() -> None:
    free, locked = network("Relu"), network("Softmax")
    assert frees_less(locked, free)
    assert not frees_less(free, locked)
    assert not frees_less(free, free)


@needs_training
@pytest.mark.slow
@pytest.mark.usefixtures("quick_latency")
def test_a_run_keeps_the_model_as_given_where_simplifying_locks_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Softmax in the place of a Relu stands for whatever simplifying has made of a network."""
    locked = network("Softmax")
    monkeypatch.setattr("onnxadmm.run.finding.simplify", lambda model: Simplified(locked, True, "simplified"))
    random = np.random.default_rng(0)
    data = random.standard_normal((120, 6)).astype(np.float32), random.integers(0, 3, 120)
    recipe = oa.Recipe(epochs=1, retrain_epochs=0, batch_size=20, workers=1)
    report = oa.compress(network("Relu"), data=data, budget=oa.Budget(params=0.6), recipe=recipe, out=tmp_path / "out")
    assert "not simplified, since fewer parameters could go afterwards" in report.simplified
    assert oa.Plan.read(tmp_path / "out" / "plan.json").simplified is False
