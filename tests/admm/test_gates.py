"""Gate gradients against finite differences and against einsum written out per case."""

import numpy as np
import pytest

from onnxadmm.admm.gates import GatedWeights, position_mask
from onnxadmm.admm.problem import Reader
from onnxadmm.errors import OptionError
from tests.admm.tiny import TinyData, TinyTrainer, tiny_problem


def test_gate_and_weight_gradients_match_finite_differences():
    trainer, batch = TinyTrainer(), next(TinyData()(0))
    problem = tiny_problem()
    gated = GatedWeights(trainer.weights, trainer.gradients, readers=problem.readers, unit_count=problem.unit_count)
    gates = np.random.default_rng(1).uniform(0.0, 1.2, problem.unit_count)
    masters = trainer.weights["second.weight"].astype(np.float64)

    def loss_at(v, w):
        trainer.weights["second.weight"][...] = w * v
        return trainer.loss(batch)

    step = 1e-2
    expected_gates = np.zeros(problem.unit_count)
    for unit in range(problem.unit_count):
        shift = np.eye(problem.unit_count)[unit] * step
        expected_gates[unit] = (loss_at(gates + shift, masters) - loss_at(gates - shift, masters)) / (2 * step)
    expected_weights = np.zeros_like(masters)
    for index in np.ndindex(masters.shape):
        shift = np.zeros_like(masters)
        shift[index] = step
        expected_weights[index] = (loss_at(gates, masters + shift) - loss_at(gates, masters - shift)) / (2 * step)
    trainer.weights["second.weight"][...] = masters

    gated.write(gates)
    trainer.backward(batch)
    found = gated.collect()
    np.testing.assert_allclose(found, expected_gates, atol=2e-5)
    np.testing.assert_allclose(trainer.gradients["second.weight"], expected_weights, atol=2e-5)
    np.testing.assert_array_equal(trainer.weights["second.weight"], masters.astype(np.float32))


def test_a_gate_of_zero_still_has_a_gradient():
    trainer, batch = TinyTrainer(), next(TinyData()(0))
    problem = tiny_problem()
    gated = GatedWeights(trainer.weights, trainer.gradients, readers=problem.readers, unit_count=12)
    gates = np.ones(12)
    gates[3] = 0.0
    gated.write(gates)
    trainer.backward(batch)
    assert gated.collect()[3] != 0.0
    assert not trainer.gradients["second.weight"][:, 3].any()


def spread_by_hand(v, units, shape, axis, blocks):
    """Scale of every entry, by plain loops."""
    scale = np.ones(shape)
    rows = shape[0] // blocks
    for index in np.ndindex(shape):
        unit = units[index[0] // rows, index[axis]] if units.ndim == 2 else units[index[axis]]
        scale[index] = 1.0 if unit < 0 else v[unit]
    return scale


@pytest.mark.parametrize(
    ("shape", "readers"),
    [
        ((4, 3, 2, 2), [Reader("w", 1, np.array([2, -1, 0]))]),
        ((4, 6), [Reader("w", 1, np.repeat([1, 0, 2], 2))]),
        ((6, 4), [Reader("w", 0, np.repeat([1, 0], 3))]),
        ((6, 2, 3, 3), [Reader("w", 1, np.array([[0, 1], [2, 3], [4, -1]]))]),
        ((5, 4), [Reader("w", 0, np.array([0, 1, 2, 3, -1])), Reader("w", 1, np.array([3, 2, 2, 0]))]),
    ],
    ids=["channels", "repeated columns", "rows", "grouped", "both axes"],
)
def test_every_kind_of_reader_scales_and_collects_as_loops_do(shape, readers):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal(shape).astype(np.float32)
    gradient = generator.standard_normal(shape).astype(np.float32)
    master, raw = weight.astype(np.float64), gradient.astype(np.float64)
    v = generator.uniform(0.1, 1.0, 5)
    gated = GatedWeights({"w": weight}, {"w": gradient}, readers=readers, unit_count=5)
    gated.write(v)
    scales = [spread_by_hand(v, r.units, shape, r.axis, r.units.shape[0] if r.units.ndim == 2 else 1) for r in readers]
    effective = master * np.prod(scales, axis=0)
    np.testing.assert_allclose(weight, effective, rtol=1e-5)

    found = gated.collect()
    # The effective weight is a polynomial in v: differentiate <raw, effective> numerically.
    for unit in range(5):
        values = []
        for sign in (1, -1):
            moved = v.copy()
            moved[unit] += sign * 1e-4
            each = [
                spread_by_hand(moved, r.units, shape, r.axis, r.units.shape[0] if r.units.ndim == 2 else 1)
                for r in readers
            ]
            values.append((raw * master * np.prod(each, axis=0)).sum())
        assert found[unit] == pytest.approx((values[0] - values[1]) / 2e-4, abs=1e-4)
    np.testing.assert_allclose(gradient, raw * np.prod(scales, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(weight, master.astype(np.float32))


def test_position_mask_marks_the_slices_of_kept_units_only():
    reader = Reader("w", 1, np.array([0, 1, -1, 1]))
    mask = position_mask(np.array([True, False]), reader, (2, 4))
    np.testing.assert_array_equal(mask, [[True, False, True, False]] * 2)


@pytest.mark.parametrize(
    "reader",
    [
        Reader("w", 1, np.arange(3)),
        Reader("w", 2, np.arange(4)),
        Reader("w", 1, np.array([0, 1, 2, 9])),
        Reader("w", 1, np.zeros((4, 4), dtype=np.int64)),
        Reader("v", 1, np.arange(4)),
    ],
    ids=["length", "axis", "unit", "blocks", "name"],
)
def test_a_reader_that_does_not_fit_its_tensor_is_refused(reader):
    weight = np.zeros((3, 4), dtype=np.float32)
    with pytest.raises(OptionError, match="reader of"):
        GatedWeights({"w": weight}, {"w": weight.copy()}, readers=(reader,), unit_count=5)


def held_gates():
    """Ones of four positions that read units 2, 0, none and 1, and their gradient."""
    ones, gradient = np.ones((4, 1), np.float32), np.array([[3.0], [5.0], [7.0], [11.0]], np.float32)
    reader = Reader("ones", 0, np.array([2, 0, -1, 1]))
    gated = GatedWeights({"ones": ones}, {"ones": gradient}, readers=(reader,), unit_count=3, held={"ones"})
    return ones, gradient, gated


def test_ones_that_are_held_carry_the_gates_and_are_never_trained():
    ones, _, gated = held_gates()
    gated.write(np.array([0.5, 0.25, 2.0]))
    np.testing.assert_array_equal(ones[:, 0], [2.0, 0.5, 1.0, 0.25])
    np.testing.assert_array_equal(gated.collect(), [5.0, 11.0, 3.0])
    ones -= 0.1
    gated.store()
    np.testing.assert_array_equal(ones, np.ones((4, 1)))


def test_the_network_of_a_plan_holds_ones_and_zeros_alone_where_tensors_are_held():
    ones, _, gated = held_gates()
    gated.settle(np.array([0.5, 0.25, 2.0]), np.array([True, False, True]))
    np.testing.assert_array_equal(ones[:, 0], [1.0, 1.0, 1.0, 0.0])


def test_the_network_of_a_plan_has_the_gates_of_kept_units_multiplied_into_weights():
    weight = np.array([[1.0, 2.0, 4.0]], np.float32)
    reader = Reader("w", 1, np.array([0, 1, -1]))
    gated = GatedWeights({"w": weight}, {"w": np.zeros_like(weight)}, readers=(reader,), unit_count=2)
    gated.settle(np.array([0.5, 0.25]), np.array([True, False]))
    np.testing.assert_array_equal(weight, [[0.5, 0.0, 4.0]])
