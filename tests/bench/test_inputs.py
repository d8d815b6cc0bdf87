"""Random inputs: shapes, types, determinism, and indices that stay inside their tables."""

import numpy as np
import pytest

from onnxadmm.bench.inputs import batch_is_free, fixed_batch, random_inputs, required_inputs
from onnxadmm.errors import ModelFileError, OptionError
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import open_session
from tests.bench.models import dense, from_text, relu

HEADER = '<ir_version: 9, opset_import: ["": 17]>'


def lookup(chain: str, *, rows: int, kind: str = "int64", shape: str = "N, 6") -> Model:
    """A model that looks up rows of a table; ``chain`` turns the input ``x`` into the indices ``i``."""
    table = ", ".join("1" for _ in range(rows * 2))
    return from_text(
        f"{HEADER} g ({kind}[{shape}] x) => (float[N, M, 2] y)"
        f" <float[{rows}, 2] table = {{{table}}}, int64[1] one = {{1}}, int64[1] zero = {{0}}>"
        f" {{ {chain} y = Gather(table, i) }}"
    )


def test_same_seed_same_inputs_other_seed_other_inputs() -> None:
    model = relu()
    first, again, other = (random_inputs(model, batch=3, seed=seed)["x"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_floats_are_standard_normal_in_the_inputs_own_type() -> None:
    for kind, dtype in (("float", np.float32), ("double", np.float64), ("float16", np.float16)):
        model = from_text(f"{HEADER} g ({kind}[N, 500] x) => ({kind}[N, 500] y) {{ y = Identity(x) }}")
        x = random_inputs(model, batch=40, seed=0)["x"]
        assert x.dtype == dtype
        assert x.shape == (40, 500)
        assert abs(float(x.astype(np.float64).mean())) < 0.05
        assert abs(float(x.astype(np.float64).std()) - 1) < 0.05


def test_two_inputs_of_one_shape_do_not_get_the_same_values() -> None:
    model = from_text(f"{HEADER} g (float[N, 4] a, float[N, 4] b) => (float[N, 4] y) {{ y = Add(a, b) }}")
    drawn = random_inputs(model, batch=2, seed=0)
    assert not np.array_equal(drawn["a"], drawn["b"])


def test_booleans_take_both_values() -> None:
    model = from_text(f"{HEADER} g (bool[N, 50] m) => (bool[N, 50] y) {{ y = Not(m) }}")
    m = random_inputs(model, batch=2, seed=0)["m"]
    assert m.dtype == np.bool_
    assert set(m.reshape(-1).tolist()) == {False, True}


def test_an_axis_with_the_name_of_the_batch_follows_the_batch_and_others_do_not() -> None:
    model = from_text(f"{HEADER} g (float[N, T, 4] a, float[3, N] b) => (float[3, N] y) {{ y = Relu(b) }}")
    drawn = random_inputs(model, batch=5, seed=0)
    assert drawn["a"].shape[0] == 5
    assert drawn["a"].shape[1] != 5
    assert drawn["b"].shape == (3, 5)


def test_a_fixed_batch_stays_what_it_is() -> None:
    model = relu(batch="7")
    assert not batch_is_free(model)
    assert fixed_batch(model) == 7
    assert random_inputs(model, batch=64, seed=0)["x"].shape == (7, 4)


def test_a_free_batch_is_seen() -> None:
    assert batch_is_free(relu())
    assert fixed_batch(relu()) == 1


def test_initializers_listed_as_inputs_are_not_fed() -> None:
    model = from_text(
        '<ir_version: 3, opset_import: ["": 9]> g (float[N, 2] x, float[2] w) => (float[N, 2] y)'
        " <float[2] w = {1, 2}> { y = Mul(x, w) }"
    )
    assert [value.name for value in required_inputs(model)] == ["x"]
    assert list(random_inputs(model, batch=2, seed=0)) == ["x"]


@pytest.mark.parametrize(
    "chain",
    [
        "i = Identity(x)",
        "i = Cast<to = 6>(x)",
        "a = Unsqueeze(x, one) b = Squeeze(a, one) i = Transpose<perm = [1, 0]>(b)",
        "a = Flatten(x) i = Concat<axis = 1>(a, a)",
    ],
    ids=["identity", "cast", "layout", "concat"],
)
def test_indices_use_the_whole_table_and_stay_inside(chain: str) -> None:
    model = lookup(chain, rows=9)
    x = random_inputs(model, batch=30, seed=1)["x"]
    assert set(x.reshape(-1).tolist()) == set(range(9))
    open_session(model).run({"x": x})


def test_the_smallest_of_two_tables_decides() -> None:
    model = from_text(
        f"{HEADER} g (int64[N] x) => (float[N] y, float[N] z)"
        " <float[9] big = {1,1,1,1,1,1,1,1,1}, float[3] small = {1,1,1}>"
        " { y = Gather(big, x) i = Identity(x) z = Gather(small, i) }"
    )
    x = random_inputs(model, batch=100, seed=1)["x"]
    assert set(x.tolist()) == {0, 1, 2}
    open_session(model).run({"x": x})


def test_the_axis_that_is_indexed_counts_not_the_first() -> None:
    model = from_text(
        f"{HEADER} g (int64[N] x) => (float[1, N] y) <float[1, 5] table = {{1,1,1,1,1}}>"
        " { y = Gather<axis = -1>(table, x) }"
    )
    assert set(random_inputs(model, batch=100, seed=1)["x"].tolist()) == {0, 1, 2, 3, 4}


def test_a_float_that_is_cast_to_an_index_holds_whole_numbers_of_the_table() -> None:
    model = lookup("i = Cast<to = 7>(x)", rows=9, kind="float")
    x = random_inputs(model, batch=30, seed=1)["x"]
    assert x.dtype == np.float32
    assert set(x.reshape(-1).tolist()) == set(map(float, range(9)))
    open_session(model).run({"x": x})


def test_indices_behind_arithmetic_stay_small_even_when_another_table_is_large() -> None:
    model = from_text(
        f"{HEADER} g (int64[N] x) => (float[N] y, float[N] z)"
        " <float[9] big = {1,1,1,1,1,1,1,1,1}, float[3] small = {1,1,1}, int64[1] one = {1}>"
        " { y = Gather(big, x) i = Add(x, one) z = Gather(small, i) }"
    )
    x = random_inputs(model, batch=100, seed=1)["x"]
    assert set(x.tolist()) == {0, 1}
    open_session(model).run({"x": x})


def test_a_table_with_one_row_leaves_one_index() -> None:
    assert set(random_inputs(lookup("i = Identity(x)", rows=1), batch=20, seed=1)["x"].reshape(-1).tolist()) == {0}


def test_integers_without_a_known_meaning_are_zero_or_one() -> None:
    for kind in ("int64", "int32", "uint8"):
        model = from_text(f"{HEADER} g ({kind}[N, 50] x) => (float[N, 50] y) {{ y = Cast<to = 1>(x) }}")
        assert set(random_inputs(model, batch=4, seed=0)["x"].reshape(-1).tolist()) == {0, 1}


def test_an_int8_index_into_a_longer_table_does_not_overflow() -> None:
    x = random_inputs(lookup("i = Cast<to = 7>(x)", rows=300, kind="int8"), batch=300, seed=1)["x"]
    assert x.dtype == np.int8
    assert 100 < int(x.max()) <= 127
    assert int(x.min()) >= 0


def test_one_hot_is_bounded_by_its_depth() -> None:
    model = from_text(
        f"{HEADER} g (int64[N] x) => (float[N, 7] y) <int64 depth = {{7}}, float[2] values = {{0, 1}}>"
        " { y = OneHot(x, depth, values) }"
    )
    assert set(random_inputs(model, batch=100, seed=0)["x"].tolist()) == set(range(7))


def test_gather_nd_is_bounded_by_the_shortest_leading_axis() -> None:
    model = from_text(
        f"{HEADER} g (int64[N, 2] x) => (float[N] y) <float[2, 4] table = {{1,1,1,1,1,1,1,1}}>"
        " { y = GatherND(table, x) }"
    )
    x = random_inputs(model, batch=100, seed=0)["x"]
    assert set(x.reshape(-1).tolist()) == {0, 1}
    open_session(model).run({"x": x})


def test_strings_are_refused_by_name() -> None:
    model = from_text(f"{HEADER} g (string[N] words) => (string[N] y) {{ y = Identity(words) }}")
    with pytest.raises(ModelFileError, match="input words: expected a float, integer or boolean tensor"):
        random_inputs(model, batch=1, seed=0)


def test_an_input_without_a_shape_is_refused_by_name() -> None:
    model = relu()
    model.ir.graph.inputs[0].shape = None
    with pytest.raises(ModelFileError, match="input x: expected a known number of axes"):
        random_inputs(model, batch=1, seed=0)


def test_more_than_fits_into_memory_is_refused_by_name() -> None:
    model = from_text(HEADER + "g (float[N, 1099511627776] x) => (float[N, k] y) { y = Relu (x) }")
    with pytest.raises(
        ModelFileError, match=r"input x: expected at most .* elements, found shape \[1, 1099511627776\]"
    ):
        random_inputs(model, batch=1, seed=0)


def test_batch_zero_is_refused() -> None:
    with pytest.raises(OptionError, match="batch: expected at least 1, found 0"):
        random_inputs(dense(4), batch=0, seed=0)
