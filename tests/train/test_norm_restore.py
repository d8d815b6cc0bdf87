"""Normalisations put back behind convolutions: the identity at first, trained with batch statistics, folded again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnxadmm.bench.inputs import batch_is_free, fixed_batch, random_inputs
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model, from_proto, load, to_proto
from onnxadmm.graph.simplify import simplify
from onnxadmm.train.batch_statistics import Moments, measure_values
from onnxadmm.train.batches import Batch
from onnxadmm.train.engine import available
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.norm_restore import Network, choose_network, find_sites, is_deep, own_norms, restore
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import Array, model_of, random

pytestmark = pytest.mark.skipif(not available(), reason="needs the training build of onnxruntime")

MSE = Loss(Task.MSE)
SIZE = 8


def conv(source: str, output: str, weight: str, bias: str | None = None, **attributes: Any) -> onnx.NodeProto:
    inputs = [source, weight] if bias is None else [source, weight, bias]
    return helper.make_node("Conv", inputs, [output], name=f"make_{output}", pads=[1, 1, 1, 1], **attributes)


def norm(source: str, output: str, prefix: str = "n") -> onnx.NodeProto:
    inputs = [source, *(f"{prefix}.{part}" for part in ("scale", "shift", "mean", "var"))]
    return helper.make_node("BatchNormalization", inputs, [output], name=f"make_{output}", epsilon=1e-3)


def op(operator: str, *inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [output], name=f"make_{output}", **attributes)


def statistics(channels: int, prefix: str = "n") -> dict[str, Array]:
    return {
        f"{prefix}.scale": 1 + random([channels], seed=21, scale=0.2),
        f"{prefix}.shift": random([channels], seed=22),
        f"{prefix}.mean": random([channels], seed=23),
        f"{prefix}.var": np.abs(random([channels], seed=24)) + np.float32(0.5),
    }


def network(*nodes: onnx.NodeProto, weights: Mapping[str, Array], width: int = 4) -> Model:
    """Nodes from ``x`` [N, 3, 6, 6] to ``y`` [N, width, ...], then pooling and a linear layer."""
    tail = [
        op("GlobalAveragePool", "y", output="pooled"),
        op("Flatten", "pooled", output="flat"),
        op("Gemm", "flat", "v", output="out"),
    ]
    whole = {**weights, "v": random([width, 3], seed=3)}
    return from_proto(model_of([*nodes, *tail], inputs={"x": ["N", 3, 6, 6]}, outputs=["out"], weights=whole, opset=17))


def kernel(out: int, into: int, seed: int, size: int = 3) -> Array:
    return random([out, into, size, size], seed=seed, scale=0.3)


def residual() -> Model:
    """A convolution, a depthwise one, and one whose result is added to the first's."""
    return network(
        conv("x", "c1", "w1", "b1"),
        op("Relu", "c1", output="r1"),
        conv("r1", "c2", "w2", "b2", group=4),
        op("Relu", "c2", output="r2"),
        conv("r2", "c3", "w3", "b3", group=2),
        op("Add", "c3", "r1", output="s"),
        op("Relu", "s", output="y"),
        weights={
            "w1": kernel(4, 3, 1),
            "w2": kernel(4, 1, 2),
            "w3": kernel(4, 2, 4),
            **{f"b{index}": random([4], seed=10 + index) for index in (1, 2, 3)},
        },
    )


def batches(count: int = 3, seed: int = 0, size: int = SIZE) -> list[Batch]:
    shift = np.linspace(-1, 1, 3, dtype=np.float32)[:, None, None]
    return [
        Batch({"x": random([size, 3, 6, 6], seed=seed + index) + shift}, None, None, size) for index in range(count)
    ]


def logits(model: Model, batch: Batch) -> NDArray[np.float32]:
    return Predictor(model, task=Task.MSE).logits(dict(batch.inputs))


def arrays(model: Model) -> dict[str, Array]:
    found = {name: constant(value) for name, value in constants_by_name(model).items()}
    return {name: array for name, array in found.items() if array is not None}


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def trainer_of(made: Network, size: int = SIZE) -> OrtTrainer:
    return OrtTrainer(made.model, loss=MSE, batch_size=size, batch_statistics=made.batch_statistics)


# -- the rewrite ---------------------------------------------------------------------------------------------


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


FIRST = {"w1": kernel(4, 3, 1), "b1": random([4], seed=11)}
SECOND = {"w2": kernel(4, 4, 2), "b2": random([4], seed=12)}


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
    values = _values(model, "c1", batches(5))
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
    values = _values(bare, "c1", batches())
    np.testing.assert_allclose(found[made.norms[0].mean], values.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[made.norms[0].variance], values.var((0, 2, 3)), rtol=1e-5, atol=1e-6)


def _values(model: Model, name: str, given: list[Batch]) -> NDArray[np.float64]:
    """A value of all batches, computed by ONNX's reference implementation."""
    proto = to_proto(model)
    proto.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    evaluator = onnx.reference.ReferenceEvaluator(proto)
    parts = [evaluator.run([name], dict(batch.inputs))[0] for batch in given]
    return np.concatenate(parts).astype(np.float64)


# -- training --------------------------------------------------------------------------------------------------


def table_norm(x: NDArray[np.float64], scale: Array, shift: Array, epsilon: float) -> NDArray[np.float64]:
    """ONNX's training mode in float64, channels on axis 1."""
    axes = (0, *range(2, x.ndim))
    along = (1, -1, *[1] * (x.ndim - 2))
    centred = x - x.mean(axes, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)
    return unit * scale.astype(np.float64).reshape(along) + shift.astype(np.float64).reshape(along)


@pytest.mark.parametrize("space", [(), (5,), (3, 4), (2, 3, 2)])
def test_gradients_in_training_mode_match_finite_differences(space: tuple[int, ...]) -> None:
    size = int(np.prod(space))
    weights = {"w": random([2, 4 * size], seed=1), "shape": np.array([-1, 4, *space], np.int64), **statistics(4)}
    proto = model_of(
        [
            op("MatMul", "x", "w", output="flat"),
            op("Reshape", "flat", "shape", output="h"),
            norm("h", "y"),
            op("Tanh", "y", output="out"),
        ],
        inputs={"x": ["N", 2]},
        outputs=["out"],
        weights=weights,
    )
    x = random([5, 2], seed=2)
    target = random([5, 4, *space], seed=3)
    live = {name: array.astype(np.float64) for name, array in weights.items() if name in ("w", "n.scale", "n.shift")}

    def loss() -> float:
        h = (x.astype(np.float64) @ live["w"]).reshape(5, 4, *space)
        return float(((np.tanh(table_norm(h, live["n.scale"], live["n.shift"], 1e-3)) - target) ** 2).mean())

    model = from_proto(proto)
    assert own_norms(model) == {"n.mean"}
    with OrtTrainer(model, loss=MSE, batch_size=5, batch_statistics={"n.mean"}) as trainer:
        value = trainer.backward(Batch({"x": x}, target, None, 5))
        assert value == pytest.approx(loss(), rel=1e-5)
        assert set(trainer.gradients) == set(live)
        for name, gradient in trainer.gradients.items():
            slopes = np.zeros(gradient.shape)
            for index in np.ndindex(*gradient.shape):
                old = live[name][index]
                live[name][index] = old + 1e-6
                above = loss()
                live[name][index] = old - 1e-6
                slopes[index] = (above - loss()) / 2e-6
                live[name][index] = old
            np.testing.assert_allclose(gradient, slopes, atol=2e-4 * np.abs(slopes).max())
            assert np.abs(slopes).max() > 1e-4


def test_networks_own_normalisations_keep_their_place_and_get_new_statistics() -> None:
    nodes = (conv("x", "c1", "w1"), norm("c1", "h"), op("Relu", "h", output="y"))
    model = network(*nodes, weights={"w1": FIRST["w1"], **statistics(4)})
    made = restore(model, batches)
    assert made.model is model
    assert made.batch_statistics == {"n.mean"}
    with trainer_of(made) as trainer:
        shipped = with_constants(model, made.finished(trainer, batches))
    values = _values(model, "c1", batches())
    np.testing.assert_allclose(arrays(shipped)["n.mean"], values.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(arrays(shipped)["n.var"], values.var((0, 2, 3)), rtol=1e-5, atol=1e-6)
    assert operators(shipped) == operators(model)


def test_equal_shifts_in_one_constant_do_not_keep_a_normalisation_out() -> None:
    second = statistics(4, "m") | {"m.shift": np.zeros(4, np.float32)}
    shared = norm("c2", "h2", "m")
    shared.input[2] = "n.shift"
    nodes = (
        conv("x", "c1", "w1"),
        norm("c1", "h1"),
        conv("x", "c2", "w2"),
        shared,
        op("Add", "h1", "h2", output="y"),
    )
    weights = {"w1": FIRST["w1"], "w2": kernel(4, 3, 7), **statistics(4), **second}
    del weights["m.shift"]
    assert own_norms(network(*nodes, weights=weights)) == {"n.mean", "m.mean"}


def test_statistics_that_two_normalisations_share_stay() -> None:
    nodes = (conv("x", "c1", "w1"), norm("c1", "h"), norm("h", "y"))
    assert own_norms(network(*nodes, weights={"w1": FIRST["w1"], **statistics(4)})) == frozenset()


def test_training_does_not_move_the_statistics_it_is_measured_with() -> None:
    made = restore(residual(), batches)
    batch = Batch(batches()[0].inputs, random([SIZE, 3]), None, SIZE)
    with trainer_of(made) as trainer:
        first = made.reestimate(trainer, batches)
        for _ in range(3):
            trainer.backward(batch)
        second = made.reestimate(trainer, batches)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_a_few_steps_lower_the_loss_and_the_shipped_network_agrees() -> None:
    model = residual()
    made = restore(model, lambda: batches(1))
    target = random([SIZE, 3], seed=70)
    batch = Batch(batches(1)[0].inputs, target, None, SIZE)
    with trainer_of(made) as trainer:
        first = trainer.backward(batch)
        for _ in range(40):
            last = trainer.backward(batch)
            trainer.update(1e-2)
        trainer.backward(batch)
        shipped = with_constants(model, made.finished(trainer, lambda: batches(1)))
        # One batch is all the data: its statistics are those the network ships with.
        np.testing.assert_allclose(logits(shipped, batch), trainer.logits, atol=2e-5)
    assert last < 0.5 * first


# -- the choice ------------------------------------------------------------------------------------------------


def chain(*, restorable: int, normalised: int) -> Model:
    """Convolutions in a row, those without bias with a normalisation."""
    nodes, weights, last = [], {}, "x"
    for index in range(restorable + normalised):
        weights[f"w{index}"] = kernel(4, 3 if index == 0 else 4, index)
        if index < restorable:
            weights[f"b{index}"] = random([4], seed=100 + index)
            nodes.append(conv(last, f"c{index}", f"w{index}", f"b{index}"))
            last = f"c{index}"
        else:
            weights |= statistics(4, f"n{index}")
            nodes += [conv(last, f"c{index}", f"w{index}"), norm(f"c{index}", f"h{index}", f"n{index}")]
            last = f"h{index}"
    return network(*nodes, op("Relu", last, output="y"), weights=weights)


@pytest.mark.parametrize(
    ("restorable", "normalised", "deep"), [(8, 0, True), (7, 0, False), (0, 8, True), (5, 3, True)]
)
def test_network_is_deep_from_eight_normalisations_on_present_or_possible(
    restorable: int, normalised: int, deep: bool
) -> None:
    model = chain(restorable=restorable, normalised=normalised)
    assert is_deep(model) == deep
    made = choose_network(model, "auto", batches, together=16)
    assert len(made.batch_statistics) == (restorable + normalised if deep else 0)
    assert len(made.norms) == (restorable if deep else 0)


def test_keep_leaves_a_deep_network_as_it_is() -> None:
    model = chain(restorable=4, normalised=4)
    made = choose_network(model, "keep", batches, together=128)
    assert made.model is model
    assert not made.batch_statistics


def test_few_samples_together_are_not_normalised_by_their_own_statistics_unless_asked_for() -> None:
    model = chain(restorable=8, normalised=0)
    assert not choose_network(model, "auto", batches, together=15).norms
    assert len(choose_network(model, "restore", batches, together=2).norms) == 8


# -- networks of exporters -------------------------------------------------------------------------------------

ZOO = Path(__file__).parent.parent / "zoo"
EXPORTED = (
    "jax_mlp",
    "listed_resnet_opset9",
    "ort_optimised_mobilenet_v3",
    "paddle_unet",
    "torch_script_conv3d",
    "torch_script_densenet",
    "torch_script_efficientnet",
    "torch_script_shufflenet_v2_fixed",
    "torch_script_tcn",
)


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_network_is_the_same_before_training_and_ships_what_was_trained(name: str) -> None:
    model = simplify(load(ZOO / f"{name}.onnx")).model
    size = 4 if batch_is_free(model) else fixed_batch(model)
    given = [Batch(random_inputs(model, batch=size, seed=seed), None, None, size) for seed in (1, 2)]
    made = restore(model, lambda: given)
    assert made.batch_statistics
    expected = logits(model, given[0])
    tolerance = 1e-5 * max(1e-2, float(np.abs(expected).max()))
    np.testing.assert_allclose(logits(made.model, given[0]), expected, atol=tolerance)
    np.testing.assert_allclose(logits(with_constants(model, made.fold({})), given[0]), expected, atol=tolerance)
    with trainer_of(made, size) as trainer:
        trainer.backward(Batch(given[0].inputs, np.zeros_like(trainer.logits), None, size))
        trainer.update(1e-3)
        trainer.backward(Batch(given[0].inputs, np.zeros_like(trainer.logits), None, size))
        shipped = with_constants(model, made.finished(trainer, lambda: given[:1]))
        scale = max(1e-2, float(np.abs(trainer.logits).max()))
        np.testing.assert_allclose(logits(shipped, given[0]), trainer.logits, atol=2e-5 * scale)
    assert operators(shipped) == operators(model)


def test_network_of_a_fixed_batch_is_measured_in_pieces_of_that_size() -> None:
    free = residual()
    fixed = to_proto(free)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    for size, count in ((8, 3), (1, 2)):
        given = batches(count, size=size)
        whole = given if size == 8 else [Batch({"x": b.inputs["x"].repeat(2, 0)}, None, None, 2) for b in given]
        found = measure_values(fixed, {"c1": 4}, given, threads=1)["c1"]
        wanted = measure_values(to_proto(free), {"c1": 4}, whole, threads=1)["c1"]
        for left, right in zip(found, wanted, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
