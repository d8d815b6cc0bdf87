"""Calibration on small networks that frameworks really exported: whatever shrinks also calibrates, and is proven."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.bench.inputs import batch_is_free, fixed_batch, random_inputs
from onnxadmm.calibrate.choose import choose
from onnxadmm.calibrate.distance import Goal, Outlook
from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.refit import refit
from onnxadmm.errors import ModelFileError
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model, from_proto, load
from onnxadmm.plan.problem import state_problem
from onnxadmm.plan.rank import score
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.rewrite.mask import mask
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rewrite.verify import verify
from onnxadmm.units.units import find_units
from tests.calibrate.networks import squares
from tests.graphs.decoder import WIDTH, Norm, decoder

ZOO = Path(__file__).parent.parent / "zoo"
MODELS = tuple(sorted(path.stem for path in ZOO.glob("*.onnx")))
SAMPLES, SHARE = 8, 0.8
EFFORT = replace(EFFORTS["quick"], levels=(0.5,), strong=0, rows=8)

#: One of each kind that a whole run has to read data for, and compare the outputs of, in its own way.
WHOLE_RUNS = {
    "handmade_opset7": "cross-entropy",  # initializers among the inputs
    "jax_mlp_opset23": "cross-entropy",  # converted for onnxruntimes that do not know its opset
    "keras_time_series": "cross-entropy",  # rows of several numbers are taken for scores
    "ort_float16_bert": "mse",  # two outputs of half precision
    "ort_qdq_lenet": "cross-entropy",
    "paddle_lstm": "cross-entropy",
    "sklearn_mlp_classifier": "cross-entropy",  # maps of probabilities
    "sklearn_mlp_regressor": "mse",
    "torch_dynamo_actor_critic": "mse",
    "torch_dynamo_encoder_decoder": "mse",  # two inputs, one of them called target
    "torch_script_unet_resize": "mse",
}

#: Models with operators that onnxruntime 1.19.2 does not know, and that no older opset has.
NEWER = tuple(f"torch_dynamo_{name}_opset23" for name in ("bert", "llama", "masked_attention", "vit"))


def batches_of(model: Model) -> list[dict[str, NDArray[Any]]]:
    size = SAMPLES if batch_is_free(model) else fixed_batch(model)
    return [random_inputs(model, batch=size, seed=seed) for seed in range(-(-SAMPLES // size))]


def law_calibrated_is_exact(given: Model, *, limits: oa.Limits) -> NDArray[np.bool_]:
    """Calibrate, and hold the result to its proof; return which units stay."""
    units = find_units(given)
    model = inline(given, cut=set(units.axes))
    problem = state_problem(model, units, oa.Budget(params=SHARE), limits)
    network, batches = Network(model, units), batches_of(model)
    scores = score(model, units, by="magnitude", seed=0)
    distance = Outlook(Goal(open_gates(model, units), batches, squares), threads=1, room=10**9)
    information = np.random.default_rng(0).uniform(0, 1, units.count)
    (choice,) = choose(network, problem, batches, scores, distance, EFFORT, information=information)
    keep = choice(problem.budget)
    fitted = refit(network, keep, batches, EFFORT)
    assert all(np.isfinite(array).all() for array in fitted.constants.values())
    whole = with_constants(model, fitted.constants)
    found = verify(mask(whole, units, keep), shrink(whole, units, keep), batches[:1])
    assert found.passed, found.first_difference
    assert not keep.all()
    return keep


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in NEWER])
def test_what_shrinks_also_calibrates(name: str) -> None:
    law_calibrated_is_exact(load(ZOO / f"{name}.onnx"), limits=oa.Limits(round_to=1))


@pytest.mark.parametrize("name", NEWER)
def test_what_this_onnxruntime_does_not_run_is_refused_in_one_sentence(name: str) -> None:
    model = load(ZOO / f"{name}.onnx")
    with pytest.raises(ModelFileError, match="use a newer onnxruntime"):
        oa.compress(model, calibrate=random_inputs(model, batch=SAMPLES, seed=0), budget=oa.Budget(params=SHARE))


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE_RUNS)
def test_a_whole_run_reads_every_kind_of_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EFFORTS, "quick", EFFORT)  # type: ignore[arg-type]  # it is a dict
    model = load(ZOO / f"{name}.onnx")
    drawn = random_inputs(model, batch=SAMPLES, seed=0, rows=SAMPLES)
    report = oa.compress(
        model,
        calibrate=drawn,
        budget=oa.Budget(params=SHARE),
        limits=oa.Limits(round_to=1),
        calibration={"effort": "quick"},
        simplified=False,
        bench=False,
    )
    assert report.verification is not None
    assert report.verification.passed
    assert report.after.parameters < report.before.parameters
    assert report.options["loss"] == WHOLE_RUNS[name]


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Div", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_the_width_of_a_stream_with_norms_of_features_calibrates(norm: Norm) -> None:
    model = from_proto(decoder(norm))
    keep = law_calibrated_is_exact(model, limits=oa.Limits(round_to=1))
    units = find_units(model)
    (stream,) = [group for group in units.groups if "words" in group.tensors]
    assert stream.count == WIDTH
    assert keep[stream.start : stream.start + WIDTH].sum() < WIDTH
