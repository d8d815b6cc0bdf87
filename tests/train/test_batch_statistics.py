"""Networks that train with the statistics of their batches: gradients, steps, and which networks do."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.bench.inputs import batch_is_free, fixed_batch, random_inputs
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model, from_proto, load, to_proto
from onnxadmm.graph.simplify import simplify
from onnxadmm.train.batch_statistics import measure_values
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.norm_restore import choose_network, is_deep, own_norms, restore
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import Array, model_of, random
from tests.train.normalised import (
    FIRST,
    MSE,
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
    values = values_of(model, "c1", batches())
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
