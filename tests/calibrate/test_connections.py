"""Single weights: against every possible choice, against magnitudes, and through whole networks."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from onnxadmm.admm.problem import Problem
from onnxadmm.calibrate import allotment, connections
from onnxadmm.calibrate.allotment import allot
from onnxadmm.calibrate.connections import choose_entries, conjugate_gradients, solve, thin
from onnxadmm.calibrate.distance import Constants, Distance, Goal, Outlook
from onnxadmm.calibrate.effort import effort_of
from onnxadmm.calibrate.fit import Sample
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.refit import refit
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, state_problem
from onnxadmm.rewrite.mask import zero_connections
from onnxadmm.units.units import find_units
from tests.calibrate.networks import squares

Array = NDArray[Any]
EFFORT = effort_of("quick")


def correlated(
    seed: int, *, blocks: int = 1, rows: int = 400, width: int = 24, outputs: int = 8
) -> tuple[Sample, Array]:
    """Rows of a few patterns and noise, with a mean, a weight with some large entries, and what it puts out."""
    generator = np.random.default_rng(seed)
    patterns = generator.standard_normal((blocks, width // 2, width))
    data = generator.standard_normal((blocks, rows, width // 2)) @ patterns + 1.0
    data += 0.3 * generator.standard_normal(data.shape)
    weight = generator.standard_t(4, (blocks, width, outputs))
    rows_read = data.astype(np.float32)
    return Sample(rows_read, (rows_read @ weight).astype(np.float32)), weight


def error(sample: Sample, matrix: Array, shift: Array) -> float:
    off = sample.rows.astype(np.float64) @ matrix + shift[:, None] - sample.targets
    return float(np.square(off).sum())


def largest(scores: Array, count: int) -> Array:
    return np.asarray(scores >= np.sort(scores, axis=None)[-count])


# -- one layer ---------------------------------------------------------------------------------------


def best_error(second: Array, weight: Array, count: int) -> float:
    """Least error over all choices of so many entries: over all of each column, then over how many each has."""
    width, outputs = weight.shape
    least = np.full((outputs, width + 1), np.inf)
    for column in range(outputs):
        target = weight[:, column]
        for size in range(width + 1):
            for support in map(list, combinations(range(width), size)):
                off = -target
                if support:
                    off = off.copy()
                    here = np.ix_(support, support)
                    off[support] = np.linalg.solve(second[here], second[support] @ target) - target[support]
                least[column, size] = min(least[column, size], off @ second @ off)
    total = np.full(count + 1, np.inf)
    total[0] = 0.0
    for column in range(outputs):
        sums = total[:, None] + least[column][None, :]
        total = np.array([min(sums[at - size, size] for size in range(min(at, width) + 1)) for at in range(count + 1)])
    return float(total[count])


def test_most_choices_are_the_best_of_all_and_the_others_are_near_it() -> None:
    ratios = []
    for seed in range(40):
        sample, weight = correlated(seed, width=6, outputs=2)
        second = (sample.rows[0].T @ sample.rows[0]).astype(np.float64)
        kept = choose_entries(second[None], second[None] @ weight, np.ones((1, 6, 2), bool), 5)
        off = solve(second[None], second[None] @ weight, kept)[0] - weight[0]
        ratios.append(float(np.einsum("wo,wo->", off, second @ off)) / best_error(second, weight[0], 5))
    assert np.min(ratios) > 1 - 1e-6
    assert np.mean(np.array(ratios) < 1 + 1e-6) >= 0.55  # 24 of the 40
    assert np.exp(np.mean(np.log(ratios))) < 1.15


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_fewer_errors_than_the_largest_entries_even_with_least_squares(share: float) -> None:
    gains = []
    for seed in range(5):
        sample, weight = correlated(seed)
        count = int(share * weight.size)
        magnitude = largest(np.abs(weight), count)
        competing = np.ones(weight.shape, bool)
        found, kept = thin(sample, weight, competing, first=magnitude, with_shift=True, ridges=(1e-4,))
        fitted, _ = thin(sample, weight, magnitude, first=magnitude, with_shift=True, ridges=(1e-4,))
        assert np.count_nonzero(kept) == count == np.count_nonzero(found.matrix)
        mean = sample.rows.mean(axis=1)[:, None]
        plain = np.where(magnitude, weight, 0.0)
        shift = (mean @ (weight - plain))[:, 0]
        errors = [error(sample, found.matrix, found.shift), error(sample, fitted.matrix, fitted.shift)]
        assert errors[1] < error(sample, plain, shift)
        gains.append(errors[0] / errors[1])
    assert max(gains) < 1.0
    assert np.mean(gains) < 0.85


@pytest.mark.parametrize("with_shift", [False, True])
@pytest.mark.parametrize("blocks", [1, 3])
def test_no_entry_that_stays_could_be_better(blocks: int, with_shift: bool) -> None:
    sample, weight = correlated(3, blocks=blocks)
    first = largest(np.abs(weight), 60)
    found, kept = thin(sample, weight, np.ones(weight.shape, bool), first=first, with_shift=with_shift, ridges=(1e-3,))
    rows = sample.rows.astype(np.float64)
    off = rows @ found.matrix + found.shift[:, None] - sample.targets
    centred = rows - rows.mean(axis=1, keepdims=True) * with_shift
    ridge = 1e-3 * np.square(centred).sum(axis=1).mean(axis=1)[:, None, None]
    slope = np.swapaxes(rows, 1, 2) @ off + ridge * (found.matrix - weight)
    assert np.abs(slope[kept]).max() < 1e-4 * np.abs(np.swapaxes(rows, 1, 2) @ sample.targets).max()
    assert np.abs(slope[~kept]).max() > 1.0
    assert (found.shift != 0).any() == with_shift
    assert np.abs(off.mean(axis=1)).max() < 1e-3 or not with_shift


def test_blocks_compete_for_the_entries_of_one_layer() -> None:
    sample, weight = correlated(5, blocks=2)
    rows, targets = sample.rows.copy(), sample.targets.copy()
    rows[1] *= 10
    targets[1] *= 10
    first = largest(np.abs(weight), 100)
    competing = np.ones(weight.shape, bool)
    _, kept = thin(Sample(rows, targets), weight, competing, first=first, with_shift=True, ridges=(1e-3,))
    assert np.count_nonzero(kept) == 100
    assert np.count_nonzero(kept[1]) > 1.5 * np.count_nonzero(kept[0])


def test_what_does_not_compete_stays_zero_and_the_others_make_up_for_it() -> None:
    sample, weight = correlated(7)
    competing = np.ones(weight.shape, bool)
    competing[:, 4:12], competing[:, :, 5] = False, False
    first = largest(np.where(competing, np.abs(weight), -1.0), 40)
    found, kept = thin(sample, weight, competing, first=first, with_shift=True, ridges=(1e-3,))
    assert np.count_nonzero(kept) == 40
    assert not kept[~competing].any()
    assert not found.matrix[~competing].any()
    every, _ = thin(sample, weight, competing, first=competing, with_shift=True, ridges=(1e-3,))
    kept_weight = np.where(competing, weight, 0.0)
    shift = (sample.rows.mean(axis=1)[:, None] @ (weight - kept_weight))[:, 0]
    assert error(sample, every.matrix, every.shift) < 0.9 * error(sample, kept_weight, shift)


def test_rows_that_are_equal_or_zero_or_few_do_no_harm() -> None:
    sample, weight = correlated(9, rows=10)
    rows = sample.rows.copy()
    rows[:, :, 1] = rows[:, :, 0]
    rows[:, :, 2] = 0.0
    short = Sample(rows, (rows @ weight).astype(np.float32))
    first = largest(np.abs(weight), 50)
    found, kept = thin(short, weight, np.ones(weight.shape, bool), first=first, with_shift=True, ridges=(1e-2, 1e-1))
    assert np.count_nonzero(kept) == 50
    assert np.isfinite(found.matrix).all()
    second = (np.swapaxes(rows, 1, 2) @ rows).astype(np.float64)  # singular, and not held by anything
    assert np.count_nonzero(choose_entries(second, second @ weight, np.ones(weight.shape, bool), 50)) == 50
    silent = Sample(0 * rows, 0 * short.targets)
    found, kept = thin(silent, weight, np.ones(weight.shape, bool), first=first, with_shift=True, ridges=(1e-2,))
    np.testing.assert_allclose(found.matrix, np.where(kept, weight, 0.0))


def test_the_ridge_is_the_one_that_holds_on_rows_not_seen() -> None:
    def chosen(sample: Sample, weight: Array) -> float:
        first = largest(np.abs(weight), 100)
        every = np.ones(weight.shape, bool)
        return thin(sample, weight, every, first=first, with_shift=True, ridges=(1e-6, 1.0))[0].ridge

    few, weight = correlated(2, rows=30)
    noise = np.random.default_rng(0).normal(0, 20, few.targets.shape).astype(np.float32)
    assert chosen(Sample(few.rows, few.targets + noise), weight) == 1.0
    assert chosen(*correlated(2, rows=2000)) == 1e-6


def test_conjugate_gradients_solve_the_same_equations() -> None:
    sample, weight = correlated(1, blocks=2)
    second = (np.swapaxes(sample.rows, 1, 2) @ sample.rows).astype(np.float64) + 10 * np.eye(24)
    products = second @ weight
    kept = largest(np.abs(weight), 90)
    diagonal = np.diagonal(second, axis1=1, axis2=2)[:, :, None]
    found = conjugate_gradients(lambda each: second @ each, diagonal, products, kept, np.zeros(weight.shape))
    assert not found[~kept].any()
    np.testing.assert_allclose(found, solve(second, products, kept), rtol=1e-5, atol=1e-6)


def test_a_layer_too_wide_keeps_the_first_guess_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, weight = correlated(4)
    first = largest(np.abs(weight), 60)
    wanted, _ = thin(sample, weight, first, first=first, with_shift=True, ridges=(1e-2,))
    monkeypatch.setattr(connections, "WIDEST", 10)
    found, kept = thin(sample, weight, np.ones(weight.shape, bool), first=first, with_shift=True, ridges=(1e-2,))
    np.testing.assert_array_equal(kept, first)
    np.testing.assert_allclose(found.matrix, wanted.matrix, atol=1e-3)


# -- whole networks ----------------------------------------------------------------------------------


TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,8,8] x, int64[N] word) => (float[N,5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    r = Relu (a)
    c = Conv <group = 2, pads = [1, 1, 1, 1]> (r, w1, b1)
    s = Relu (c)
    m = GlobalAveragePool (s)
    f = Flatten (m)
    e = Gather (table, word)
    h = Add (f, e)
    t = Gemm (h, w2, b2)
    u = Relu (t)
    y = Gemm (u, w3, b3)
}"""
SHAPES = {"w0": (12, 4, 3, 3), "b0": (12,), "w1": (16, 6, 3, 3), "b1": (16,), "table": (9, 16), "w2": (16, 24),
          "b2": (24,), "w3": (24, 5), "b3": (5,)}  # fmt: skip
CONNECTIONS = {"w0", "w1", "table", "w2", "w3"}


def made(*, scale: float = 1.0) -> Model:
    """A network; the second convolution reads the first one's outputs multiplied by ``scale``, and makes up for it."""
    proto = parser.parse_model(TEXT)
    generator = np.random.default_rng(0)
    factors = {"w0": scale, "b0": scale, "w1": 1 / scale}
    for name, shape in SHAPES.items():
        array = generator.standard_normal(shape) * (0.1 if len(shape) > 2 else 0.3) * factors.get(name, 1.0)
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.checker.check_model(proto)
    return from_proto(proto)


def feeds(seed: int = 1) -> list[dict[str, Array]]:
    generator = np.random.default_rng(seed)
    patterns = generator.standard_normal((6, 4, 8, 8))
    return [
        {
            "x": (np.tensordot(generator.standard_normal((32, 6)), patterns, 1)).astype(np.float32),
            "word": generator.integers(0, 9, 32),
        }
        for _ in range(4)
    ]


def stated(model: Model, share: float) -> tuple[Network, Problem]:
    units = find_units(model)
    return Network(model, units), state_problem(model, units, Budget(connections=share), Limits())


def outputs(model: Model, seed: int = 2) -> Array:
    with open_session(model, threads=1) as session:
        return np.concatenate([session.run(feed)["y"] for feed in feeds(seed)])


def distance_from(model: Model) -> Distance:
    return Outlook(Goal(model, feeds(), squares), threads=1, room=10**9)


def weights(model: Model) -> dict[str, Array]:
    values = constants_by_name(model)
    return {name: np.asarray(constant(values[name])) for name in CONNECTIONS}


@pytest.mark.parametrize("share", [0.7, 0.33, 0.05])
def test_the_share_of_what_remains_is_met_to_the_entry(share: float) -> None:
    network, problem = stated(made(), share)
    assert set(problem.connections) == CONNECTIONS
    keep = np.ones(network.units.count, bool)
    for gone in ([], [0, 3, 14, 20]):
        keep[gone] = False
        allotted = allot(network, problem, keep, feeds(), EFFORT, distance=distance_from(network.model))
        fitted = refit(network, keep, feeds(), EFFORT, connections=allotted)
        total = sum(int(mask.sum()) for mask in allotted.remaining.values())
        assert (total == sum(np.prod(SHAPES[name]) for name in CONNECTIONS)) == (not gone)
        assert fitted.zeros.keys() == CONNECTIONS
        assert sum(int((~zeros).sum()) for zeros in fitted.zeros.values()) == int(share * total)
        for name, zeros in fitted.zeros.items():
            assert zeros.dtype == np.bool_
            assert zeros[~allotted.remaining[name]].all()
            np.testing.assert_array_equal(fitted.constants[name] == 0, zeros)
            left = np.count_nonzero(allotted.remaining[name])
            assert np.count_nonzero(~zeros) >= int(0.5 * share * left)


def test_how_a_layer_is_scaled_against_the_next_is_all_one() -> None:
    found = []
    for scale in (1.0, 64.0):
        network, problem = stated(made(scale=scale), 0.3)
        keep = np.ones(network.units.count, bool)
        found.append(allot(network, problem, keep, feeds(), EFFORT, distance=distance_from(network.model)).kept)
    for name in CONNECTIONS:
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_what_is_always_the_same_is_left_to_the_offset() -> None:
    proto = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,6] x) => (float[N,3] y) { a = Gemm (x, w, b) r = Relu (a) y = Gemm (r, v, c) }""")
    generator = np.random.default_rng(0)
    for name, shape in (("w", (6, 20)), ("b", (20,)), ("v", (20, 3)), ("c", (3,))):
        array = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    network, problem = stated(from_proto(proto), 0.5)
    read = generator.standard_normal((200, 6)).astype(np.float32)
    read[:, 2] = 10.0
    keep = np.ones(network.units.count, bool)
    allotted = allot(network, problem, keep, [{"x": read}], EFFORT)
    assert not allotted.kept["w"][2].any()
    fitted = refit(network, keep, [{"x": read}], EFFORT, connections=allotted)
    assert np.count_nonzero(fitted.zeros["w"][2]) >= 19  # the ridge alone speaks for them
    assert np.abs(fitted.constants["b"]).max() > 10.0


def test_without_a_distance_an_error_counts_the_same_in_every_layer() -> None:
    network, problem = stated(made(), 0.3)
    keep = np.ones(network.units.count, bool)
    found = allot(network, problem, keep, feeds(), EFFORT).kept
    values = weights(network.model)
    # What no layer reads has H = I, and w^2 / sum w^2 in the place of the loss.
    table = values["table"]
    assert np.abs(table[found["table"]]).min() >= np.abs(table[~found["table"]]).max()
    assert sum(int(mask.sum()) for mask in found.values()) == int(0.3 * sum(array.size for array in values.values()))


@pytest.mark.parametrize("name", ["w0", "w2", "table"])
def test_a_weight_that_the_network_depends_on_keeps_more(name: str) -> None:
    model = made()
    network, problem = stated(model, 0.3)
    keep = np.ones(network.units.count, bool)
    counts = []
    for worth in (0.01, 1.0, np.nan):  # one that puts out no numbers is as far off as can be

        def distance(changes: Sequence[Constants], worth: float = worth) -> list[float]:
            return [worth if name in each else 0.1 for each in changes]

        counts.append(np.count_nonzero(allot(network, problem, keep, feeds(), EFFORT, distance=distance).kept[name]))
    assert counts[0] < counts[1] < counts[2]


def test_a_weight_that_no_layer_reads_keeps_its_largest_entries_as_they_are() -> None:
    model = made()
    network, problem = stated(model, 0.4)
    keep = np.ones(network.units.count, bool)
    fitted = refit(
        network,
        keep,
        feeds(),
        EFFORT,
        connections=allot(network, problem, keep, feeds(), EFFORT, distance=distance_from(network.model)),
    )
    table, stays = weights(model)["table"], ~fitted.zeros["table"]
    assert 0 < np.count_nonzero(stays) < table.size
    assert np.abs(table[stays]).min() >= np.abs(table[~stays]).max()
    np.testing.assert_array_equal(fitted.constants["table"], np.where(stays, table, 0))


def test_a_fitted_network_is_nearer_to_the_original_than_its_largest_weights() -> None:
    model = made()
    network, problem = stated(model, 0.4)
    keep = np.ones(network.units.count, bool)
    fitted = refit(
        network,
        keep,
        feeds(),
        EFFORT,
        connections=allot(network, problem, keep, feeds(), EFFORT, distance=distance_from(network.model)),
    )
    arrays = weights(model)
    bound = np.sort(np.concatenate([np.abs(array).reshape(-1) for array in arrays.values()]))
    zeros = {name: np.abs(array) < bound[int(0.6 * bound.size)] for name, array in arrays.items()}
    before = outputs(model)
    off = np.square(outputs(with_constants(model, fitted.constants)) - before).mean()
    assert off < 0.5 * np.square(outputs(zero_connections(model, zeros)) - before).mean()


def test_units_and_connections_go_together() -> None:
    model = made()
    network, problem = stated(model, 0.5)
    keep = np.ones(network.units.count, bool)
    keep[[1, 2, 15, 22]] = False
    allotted = allot(network, problem, keep, feeds(), EFFORT, distance=distance_from(network.model))
    fitted = refit(network, keep, feeds(), EFFORT, connections=allotted)
    whole = with_constants(model, fitted.constants)
    np.testing.assert_allclose(outputs(network.masked(fitted.constants, keep)), outputs(whole), atol=1e-5)
    dense = refit(network, keep, feeds(), EFFORT)
    assert dense.zeros == {}
    assert "w0" not in dense.constants  # in front of what goes nothing is to be made up for
    assert fitted.constants.keys() >= CONNECTIONS


def test_a_wide_layer_is_looked_at_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    network, problem = stated(made(), 0.3)
    keep = np.ones(network.units.count, bool)
    usual = allot(network, problem, keep, feeds(), EFFORT, distance=distance_from(network.model)).kept
    monkeypatch.setattr(allotment, "WIDEST", 30)
    in_runs = allot(network, problem, keep, feeds(), EFFORT, distance=distance_from(network.model)).kept
    assert sum(mask.sum() for mask in in_runs.values()) == sum(mask.sum() for mask in usual.values())
    agree = np.concatenate([(usual[name] == in_runs[name]).reshape(-1) for name in CONNECTIONS])
    assert 0.8 < agree.mean() < 1.0
