"""Data that a small BERT and a small ViT learn from: sentences and pictures, drawn from a seed.

Needs numpy and nothing of this project.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Words of a sentence, words there are, topics, and the share of the words that are drawn from those of the topic.
LENGTH, WORDS, TOPICS = 24, 128, 8
ON_TOPIC: Final = 0.5
#: Side of a picture, the shapes on it, and the deviation of its noise.
SIDE, SHAPES = 16, ("disc", "ring", "square", "frame", "cross", "saltire", "triangle", "stripes")
NOISE: Final = 0.35
#: Samples and seed of the data to learn from, and of those to judge by.
TRAINING: Final = (20_000, 0)
TEST: Final = (10_000, 1)


def sentences(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw sentences, int64 ``[count, 24]``, and the topic of each, int64 ``[count]``.

    Topics differ in how often they say each word, always in the same way; the other words of a sentence are anybody's.
    """
    habits = np.random.default_rng(0).dirichlet(np.full(WORDS, 0.3), TOPICS)
    generator = np.random.default_rng((1, seed))
    topics = generator.integers(0, TOPICS, count)
    on_topic = generator.random((count, LENGTH)) < ON_TOPIC
    words = generator.integers(0, WORDS, (count, LENGTH))
    for topic, habit in enumerate(habits):
        chosen = on_topic & (topics == topic)[:, None]
        words[chosen] = generator.choice(WORDS, chosen.sum(), p=habit)
    return words, topics


def pictures(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw grey pictures, float32 ``[count, 1, 16, 16]``, and the shape that is on each, int64 ``[count]``."""
    generator = np.random.default_rng((2, seed))
    shapes = generator.integers(0, len(SHAPES), count)
    radius = generator.uniform(5, 8, (count, 1, 1))
    centre = generator.uniform(7, SIDE - 8, (2, count, 1, 1))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y, x = (rows[None] - centre[0]) / radius, (columns[None] - centre[1]) / radius
    far, wide, inside = np.hypot(y, x), np.maximum(abs(y), abs(x)), np.hypot(y, x) < 1
    drawn = np.choose(
        shapes[:, None, None],
        [
            inside,
            inside & (far > 0.6),
            wide < 0.8,
            (wide < 0.85) & (wide > 0.5),
            inside & (np.minimum(abs(y), abs(x)) < 0.25),
            inside & (np.minimum(abs(y - x), abs(y + x)) < 0.35),
            (y < 0.7) & (y > 2 * abs(x) - 0.9),
            inside & (np.sin(9 * y) > 0),
        ],
    )
    shade = generator.uniform(0.6, 1.4, (count, 1, 1))
    noisy = shade * drawn + NOISE * generator.standard_normal(drawn.shape)
    return noisy[:, None].astype(np.float32), shapes


#: What each network learns from: inputs and labels, given how many of them and a seed.
KINDS: Final[dict[str, Callable[[int, int], tuple[NDArray[Any], NDArray[np.int64]]]]] = {
    "bert": sentences,
    "vit": pictures,
}
