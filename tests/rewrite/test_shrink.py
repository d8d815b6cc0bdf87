"""What a cut takes of an array, and the way back."""

import numpy as np
import pytest

from onnxadmm.rewrite.shrink import cut, put_back
from onnxadmm.rules.edit import Positions

#: Positions of each axis of an array ``[4, 6]``; two rows of positions hold for the first and the second half of it.
POSITIONS: dict[str, tuple[Positions | None, ...]] = {
    "all": (None, None),
    "rows": (np.array([1, 3]), None),
    "both": (np.array([0, 2, 3]), np.array([5])),
    "blocks": (None, np.array([[0, 1], [4, 5]])),
    "rows and blocks": (np.array([0, 2]), np.array([[0, 1, 2], [3, 4, 5]])),
}


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
def test_what_was_cut_goes_back_to_its_place(positions: tuple[Positions | None, ...]) -> None:
    array = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    part = cut(array, positions)
    whole = put_back(np.zeros_like(array), part + 100, positions)
    np.testing.assert_array_equal(whole[whole > 0], np.sort(part, axis=None) + 100)
    np.testing.assert_array_equal(array[whole > 0] + 100, whole[whole > 0])
    np.testing.assert_array_equal(cut(whole, positions), part + 100)
    assert np.count_nonzero(whole) == part.size
