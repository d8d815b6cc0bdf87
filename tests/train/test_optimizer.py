import numpy as np
import pytest

from onnxadmm.train.optimizer import AdamW


def textbook(
    weights: np.ndarray, gradients: list[np.ndarray], *, rate: float, decay: float, epsilon: float = 1e-8
) -> np.ndarray:
    """Algorithm 2 of the AdamW paper, in float64, as it is printed."""
    w = weights.astype(np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + epsilon)
        w = w - rate * step - rate * decay * w
    return w


@pytest.mark.parametrize("size", [1, 1000, (1 << 14) + 7])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_follow_the_textbook(size: int, decay: float) -> None:
    generator = np.random.default_rng(0)
    weights = generator.standard_normal(size).astype(np.float32)
    gradients = [generator.standard_normal(size).astype(np.float32) for _ in range(5)]
    expected = textbook(weights, [g.astype(np.float64) for g in gradients], rate=1e-2, decay=decay)
    optimizer = AdamW(size, weight_decay=decay)
    for gradient in gradients:
        optimizer.step(weights, gradient, 1e-2)
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


def test_textbook_comparison_notices_a_forgotten_decay() -> None:
    weights, gradient = np.ones(10, np.float32), np.ones(10, np.float32)
    expected = textbook(weights, [gradient], rate=1e-2, decay=0.1)
    AdamW(10).step(weights, gradient, 1e-2)
    assert not np.allclose(weights, expected, rtol=1e-4)


def test_entries_without_any_gradient_do_not_move() -> None:
    weights = np.ones(10, np.float32)
    gradient = np.zeros(10, np.float32)
    gradient[3] = 1e-3
    AdamW(10).step(weights, gradient, 1e-2)
    assert np.flatnonzero(weights != 1.0).tolist() == [3]
