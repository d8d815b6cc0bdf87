"""Where the first difference is said to be, in networks whose heads are merged with a free batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxadmm.graph.constants import set_constant
from onnxadmm.graph.model import Model, clone
from onnxadmm.rewrite.mask import mask
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rewrite.verify import verify
from onnxadmm.surgery import trial_inputs
from onnxadmm.units.stretch import stretch
from onnxadmm.units.units import Units
from tests.rewrite import laws
from tests.rules.heads import HEADS
from tests.samples_text import parse_sample


def _without_first_head() -> tuple[Model, Model, Units, NDArray[np.bool_]]:
    model, units = laws.units_of(parse_sample(HEADS["heads merged with a free batch"][1]))
    (heads,) = [group for group in units.groups if "W1" in group.tensors]
    keep = np.ones(units.count, dtype=np.bool_)
    keep[heads.start] = False
    return mask(model, units, keep), shrink(model, units, keep), units, keep


@pytest.mark.parametrize(
    ("weight", "tensor"),
    # The order of computation is m a b q c d e g k i j l v s ... y; q, g, k, v, s and more are [N * heads, ...].
    [("W1", "m"), ("W3", "c"), ("W4", "i"), ("W2", "y")],
)
def test_a_planted_fault_is_located_although_the_batch_is_not_the_samples(weight: str, tensor: str) -> None:
    masked, small, units, keep = _without_first_head()
    faulty = clone(small)
    value = faulty.ir.graph.initializers[weight]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[0, -1] += 1
    set_constant(faulty, value, array)
    feeds = trial_inputs(masked, seed=0)
    assert [len(feed["x"]) for feed in feeds] == [1, 3]  # the sample has two

    def kept(name: str, shape: tuple[int, ...]) -> tuple[NDArray[np.int64] | None, ...] | None:
        return units.positions(name, keep, shape)

    assert verify(masked, small, feeds, kept=kept).passed
    found = verify(masked, faulty, feeds, kept=kept).first_difference
    assert found is not None
    assert f"tensor {tensor}, computed by" in found


def test_merged_heads_are_compared_where_they_stand_at_another_batch() -> None:
    _, _, units, keep = _without_first_head()
    assert units.shapes.shape("q") == (6, 5, 4)
    for batch in (1, 2, 5):
        positions = units.positions("q", keep, (3 * batch, 5, 4))
        assert positions is not None
        assert positions[0] is not None
        np.testing.assert_array_equal(positions[0].reshape(batch, 2), 3 * np.arange(batch)[:, None] + [1, 2])


@given(
    units=st.lists(st.integers(-1, 4), min_size=1, max_size=6),
    before=st.integers(1, 4),
    behind=st.integers(1, 4),
    now=st.integers(1, 5),
)
def test_a_stretched_axis_is_what_the_units_are_at_that_length_or_refused(
    units: list[int], before: int, behind: int, now: int
) -> None:
    one = np.array(units, dtype=np.int64)
    for at_first, at_now in (
        (np.tile(one, before), np.tile(one, now)),
        (np.repeat(one, behind), np.repeat(one, now)),
    ):
        try:
            found = stretch(at_first, at_now.size)
        except LookupError:
            continue
        assert found.size == at_now.size
        # Units that repeat themselves could stand either way; those that do not leave no choice.
        if len(set(units)) == len(units):
            np.testing.assert_array_equal(found, at_now)


def test_units_before_and_behind_a_free_length_are_told() -> None:
    np.testing.assert_array_equal(stretch(np.array([0, 1, -1, 0, 1, -1]), 9), [0, 1, -1] * 3)
    np.testing.assert_array_equal(stretch(np.array([0, 0, 1, 1, -1, -1]), 9), [0, 0, 0, 1, 1, 1, -1, -1, -1])


def test_what_stands_between_two_free_lengths_is_refused() -> None:
    with pytest.raises(LookupError):
        stretch(np.tile(np.repeat(np.arange(3), 2), 2), 36)
    with pytest.raises(LookupError):
        stretch(np.zeros((2, 3), dtype=np.int64), 4)
