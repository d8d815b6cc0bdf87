"""Samples are dealt by what they are: evenly, and with few moves when machines come and go."""

import numpy as np

from onnxadmm.cluster.dealing import dealt

KEYS = np.arange(20_000, dtype=np.uint64)


def test_every_machine_has_its_share() -> None:
    for machines in ((0, 1), (0, 1, 2, 3), tuple(range(16))):
        counts = np.bincount(dealt(KEYS, machines), minlength=len(machines))
        expected = len(KEYS) / len(machines)
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_only_the_samples_of_a_lost_machine_move_and_to_all_others() -> None:
    before, after = dealt(KEYS, (0, 1, 2, 3)), dealt(KEYS, (0, 1, 3))
    stayed = before != 2
    np.testing.assert_array_equal(before[stayed], after[stayed])
    counts = np.bincount(after[~stayed], minlength=4)
    assert counts[2] == 0
    assert counts[[0, 1, 3]].min() > 0.25 * counts.sum()


def test_one_that_comes_back_has_its_own_again() -> None:
    np.testing.assert_array_equal(dealt(KEYS, (0, 1, 2)), dealt(KEYS[::-1], (2, 1, 0))[::-1])


def test_equal_samples_are_together_whatever_else_there_is() -> None:
    digests = np.random.default_rng(0).integers(2**64, size=500, dtype=np.uint64)
    twice = np.concatenate([digests, digests])
    found = dealt(twice, (0, 1, 2))
    np.testing.assert_array_equal(found[:500], found[500:])
    np.testing.assert_array_equal(dealt(digests[:10], (0, 1, 2)), found[:10])
