"""Normalisations put back behind convolutions: the identity at first, trained with batch statistics, folded again."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import from_proto, to_proto
from onnxadmm.train.batch_statistics import Moments, measure_values
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.norm_restore import find_sites, restore
from tests.train.graphs import Array, model_of, random
from tests.train.normalised import (
    FIRST,
    SECOND,
    SIZE,
    arrays,
    batches,
    conv,
    kernel,
    logits,
    network,
    norm,
    op,
    operators,
    residual,
    statistics,
    trainer_of,
    values_of,
)

pytestmark = pytest.mark.usefixtures("engine")


def test_restored_network_computes_what_the_original_computes() -> None:
    model = residual()
    made = restore(model, batches)
    assert operators(made.model).count("BatchNormalization") == 3
    assert [site.output for site in find_sites(model)] == ["c1", "c2", "c3"]
    for batch in batches(2, seed=50):
        np.testing.assert_allclose(logits(made.model, batch), logits(model, batch), atol=2e-6)


def test_original_is_left_as_it_was() -> None:
    model = residual()
    before, nodes = {name: array.copy() for name, array in arrays(model).items()}, operators(model)
    restore(model, batches)
    assert operators(model) == nodes
    for name, array in arrays(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_folding_what_was_restored_gives_the_weights_back() -> None:
    model = residual()
    folded = restore(model, batches).fold({})
    assert set(folded) == {"w1", "w2", "w3", "b1", "b2", "b3"}
    before = arrays(model)
    for name, array in folded.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, before[name], rtol=1e-6, atol=2e-6)


def test_folding_other_constants_computes_what_the_normalised_network_computes() -> None:
    model = residual()
    made = restore(model, batches)
    changed = {
        name: array * (1 + random(array.shape, seed=5, scale=0.3))
        for name, array in arrays(made.model).items()
        if array.dtype == np.float32
    }
    changed |= {made.norms[0].variance: np.full(4, 0.25, np.float32), made.norms[1].mean: np.full(4, 0.5, np.float32)}
    changed = {name: np.abs(array) if "variance" in name else array for name, array in changed.items()}
    shipped = with_constants(model, made.fold(changed))
    batch = batches(1, seed=60)[0]
    expected = logits(with_constants(made.model, changed), batch)
    np.testing.assert_allclose(logits(shipped, batch), expected, atol=1e-5 * float(np.abs(expected).max()))
    assert operators(shipped) == operators(model)


def test_zeros_of_a_weight_stay_zeros_when_folded() -> None:
    model = residual()
    weight = arrays(model)["w1"].copy()
    weight[1, :, 0] = 0
    made = restore(with_constants(model, {"w1": weight}), batches)
    with trainer_of(made) as trainer:
        folded = made.finished(trainer, batches)
    assert not folded["w1"][weight == 0].any()
    assert folded["w1"][weight != 0].all()


def test_channel_that_never_changes_stays_finite() -> None:
    model = residual()
    weight = arrays(model)["w1"].copy()
    weight[2] = 0
    model = with_constants(model, {"w1": weight})
    made = restore(model, batches)
    batch = batches(1)[0]
    np.testing.assert_allclose(logits(made.model, batch), logits(model, batch), atol=2e-6)
    with trainer_of(made) as trainer:
        trainer.backward(Batch(batch.inputs, random([SIZE, 3]), None, SIZE))
        assert all(np.isfinite(gradient).all() for gradient in trainer.gradients.values())


# -- where -----------------------------------------------------------------------------------------------------


def sites_of(*nodes: onnx.NodeProto, weights: Mapping[str, Array], width: int = 4) -> list[str]:
    return [site.output for site in find_sites(network(*nodes, weights=weights, width=width))]


def test_convolution_without_bias_gets_none() -> None:
    nodes = (conv("x", "c1", "w1"), op("Relu", "c1", output="y"))
    assert sites_of(*nodes, weights={"w1": FIRST["w1"]}) == []


def test_convolution_that_is_normalised_already_gets_none() -> None:
    nodes = (conv("x", "c1", "w1", "b1"), norm("c1", "h"), conv("h", "c2", "w2", "b2"), op("Relu", "c2", output="y"))
    assert sites_of(*nodes, weights={**FIRST, **SECOND, **statistics(4)}) == ["c2"]


@pytest.mark.parametrize("written_out", [False, True])
def test_convolution_whose_channels_are_normalised_last_gets_none(written_out: bool) -> None:
    axes = {"axes": [-1], "keepdims": 1}
    means = [op("ReduceMean", "t", output="m", **axes), op("Sub", "t", "m", output="u")]
    whole = [op("LayerNormalization", "t", "n.scale", "n.shift", output="u", axis=-1)]
    nodes = (
        conv("x", "c1", "w1", "b1"),
        op("Transpose", "c1", output="t", perm=[0, 2, 3, 1]),
        *(means if written_out else whole),
        op("Transpose", "u", output="r", perm=[0, 3, 1, 2]),
        conv("r", "c2", "w2", "b2"),
        op("Relu", "c2", output="y"),
    )
    assert sites_of(*nodes, weights={**FIRST, **SECOND, **statistics(4)}) == ["c2"]


@pytest.mark.parametrize("shared", ["w2", "b2"])
def test_convolutions_that_share_a_constant_get_none(shared: str) -> None:
    names = {"w3": "w3", "b3": "b3", shared.replace("2", "3"): shared}
    nodes = (
        conv("x", "c1", "w1", "b1"),
        conv("c1", "c2", "w2", "b2"),
        op("Relu", "c2", output="r2"),
        conv("r2", "c3", names["w3"], names["b3"]),
        op("Relu", "c3", output="y"),
    )
    third = {"w3": kernel(4, 4, 6), "b3": random([4], seed=13)}
    weights = {
        name: array
        for name, array in {**FIRST, **SECOND, **third}.items()
        if name in (*FIRST, *SECOND, *names.values())
    }
    assert sites_of(*nodes, weights=weights) == ["c1"]


def test_convolution_whose_values_are_the_result_gets_none() -> None:
    model = from_proto(
        model_of(
            [
                conv("x", "c1", "w1", "b1"),
                op("Relu", "c1", output="r1"),
                conv("r1", "c2", "w2", "b2"),
                op("GlobalAveragePool", "c2", output="g"),
                op("Flatten", "g", output="out"),
            ],
            inputs={"x": ["N", 3, 6, 6]},
            outputs=["out"],
            weights={**FIRST, **SECOND},
        )
    )
    assert [site.output for site in find_sites(model)] == ["c1"]


def test_convolution_of_single_positions_gets_none() -> None:
    gate = helper.make_node("Conv", ["g", "w2", "b2"], ["c2"])
    nodes = (
        conv("x", "c1", "w1", "b1"),
        op("GlobalAveragePool", "c1", output="g"),
        gate,
        op("Sigmoid", "c2", output="s"),
        op("Mul", "c1", "s", output="y"),
    )
    assert sites_of(*nodes, weights={**FIRST, "w2": kernel(4, 4, 2, size=1), "b2": SECOND["b2"]}) == ["c1"]


def test_network_without_convolutions_stays_as_it_is() -> None:
    model = network(conv("x", "y", "w1"), weights={"w1": FIRST["w1"]})
    made = restore(model, batches)
    assert made.model is model
    assert not made.norms
    assert not made.batch_statistics


# -- statistics ------------------------------------------------------------------------------------------------


def test_measured_values_are_those_of_all_samples_together() -> None:
    model = residual()
    (mean, variance) = measure_values(to_proto(model), {"c1": 4}, batches(5), threads=1)["c1"]
    values = values_of(model, "c1", batches(5))
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, values.var((0, 2, 3)), rtol=1e-5, atol=1e-6)


def test_moments_of_batches_far_from_zero_do_not_cancel() -> None:
    data = np.random.default_rng(0).normal(1000, 1, (6, 50, 2))
    moments = Moments()
    for batch in data:
        moments.add(batch.mean(0).astype(np.float32), batch.var(0).astype(np.float32))
    np.testing.assert_allclose(moments.variance, data.reshape(-1, 2).var(0), rtol=1e-2)


def test_estimated_anew_they_are_those_of_the_changed_weights() -> None:
    model = residual()
    made = restore(model, batches)
    with trainer_of(made) as trainer:
        trainer.weights["w1"][...] *= 2
        found = made.reestimate(trainer, batches)
    # Without the bias, which the shift stands for.
    bare = with_constants(model, {"w1": 2 * arrays(model)["w1"], "b1": np.zeros(4, np.float32)})
    values = values_of(bare, "c1", batches())
    np.testing.assert_allclose(found[made.norms[0].mean], values.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[made.norms[0].variance], values.var((0, 2, 3)), rtol=1e-5, atol=1e-6)


# -- training --------------------------------------------------------------------------------------------------
