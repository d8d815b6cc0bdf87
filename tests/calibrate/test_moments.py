"""Second moments of rows, in single precision, beside double precision: also of rows far from zero."""

import numpy as np
import pytest

from onnxadmm.calibrate import moments
from onnxadmm.calibrate.moments import Moments


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e4])
def test_what_varies_is_found_however_far_rows_lie_from_zero(offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_CHUNK", 300)
    random = np.random.default_rng(0)
    mixed = random.standard_normal((2, 1000, 5)) @ random.standard_normal((5, 5))
    rows = (offset + mixed).astype(np.float32)
    found = Moments.of(rows[:, :400])
    found.add(rows[:, 400:])
    exact = rows.astype(np.float64)
    assert found.count == 1000
    np.testing.assert_allclose(found.mean, exact.mean(axis=1), rtol=1e-12, atol=1e-12)
    about = exact - exact.mean(axis=1, keepdims=True)
    expected = np.swapaxes(about, 1, 2) @ about
    np.testing.assert_allclose(found.about_the_mean(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    ended = np.concatenate([exact, np.ones((2, 1000, 1))], axis=2)
    np.testing.assert_allclose(found.with_one(), np.swapaxes(ended, 1, 2) @ ended, rtol=1e-6)
