import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxadmm.errors import DataError, OptionError
from onnxadmm.train.data.batches import ArrayDataset, hold_out
from onnxadmm.train.data.images import Augmentation, Transform

PLAIN = Transform(None, None, np.dtype(np.float32))


def numbered(count: int, *, classes: int = 5, labels: bool = True) -> ArrayDataset:
    """Sample i is the image [[[i]]] with the label i mod classes."""
    x = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    y = np.arange(count, dtype=np.int64) % classes if labels else None
    return ArrayDataset({"x": x}, y, {"x": PLAIN}, {}, np.arange(count, dtype=np.int64))


def seen(data: ArrayDataset, size: int, **options: bool | int) -> list[int]:
    return [
        int(value)
        for batch in data.batches(size, **options)  # type: ignore[arg-type]
        for value in batch.inputs["x"][: batch.count].ravel()
    ]


def test_every_sample_comes_once_in_order() -> None:
    assert seen(numbered(10), 4) == list(range(10))


def test_shuffling_keeps_every_sample_and_follows_the_seed() -> None:
    data = numbered(50)
    first = seen(data, 8, shuffle=True, seed=1)
    assert sorted(first) == list(range(50))
    assert first == seen(data, 8, shuffle=True, seed=1)
    assert first != seen(data, 8, shuffle=True, seed=2)
    assert first != list(range(50))


def test_labels_and_indices_belong_to_their_samples() -> None:
    for batch in numbered(23).batches(5, shuffle=True, seed=3):
        values = batch.inputs["x"].ravel()
        assert batch.labels is not None
        assert batch.indices is not None
        np.testing.assert_array_equal(values % 5, batch.labels)
        np.testing.assert_array_equal(values, batch.indices)


def test_last_batch_is_dropped_padded_or_short_as_asked() -> None:
    data = numbered(10)
    assert [len(b.inputs["x"]) for b in data.batches(4)] == [4, 4, 2]
    assert [len(b.inputs["x"]) for b in data.batches(4, drop_last=True)] == [4, 4]
    padded = list(data.batches(4, pad_last=True))
    assert [len(b.inputs["x"]) for b in padded] == [4, 4, 4]
    assert [b.count for b in padded] == [4, 4, 2]
    assert padded[-1].inputs["x"].ravel().tolist() == [8, 9, 0, 1]
    (few,) = data.batches(24, pad_last=True)
    assert few.count == 10
    assert few.inputs["x"].ravel().tolist() == [*range(10), *range(10), 0, 1, 2, 3]


def test_some_samples_are_of_all_that_lie_one_class_after_the_other() -> None:
    data = numbered(1000)
    some = data.some(50)
    assert len(some) == 50
    assert (np.diff(some.order) > 0).all()
    assert np.bincount(some.order // 200, minlength=5).min() > 2  # five classes of 200, one behind the other
    np.testing.assert_array_equal(some.order, data.some(50).order)
    assert data.some(1000) is data


def test_fewer_samples_than_a_batch_are_refused_with_numbers() -> None:
    with pytest.raises(DataError, match=r"one batch of 16.*10 samples"):
        numbered(10).batches(16, drop_last=True)


def test_augmented_batches_say_so() -> None:
    data = numbered(10)
    assert not any(batch.augmented for batch in data.batches(4, augment=True))
    change = {"x": Augmentation(flip=True, crop=1, channels_last=False)}
    changed = ArrayDataset(data.inputs, data.labels, data.transforms, change, data.order)
    assert all(batch.augmented for batch in changed.batches(4, augment=True))
    assert not any(batch.augmented for batch in changed.batches(4))


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 300), share=st.floats(0.01, 0.99), at_most=st.integers(1, 40), seed=st.integers(0, 9))
def test_held_out_part_and_training_part_are_the_whole_without_overlap(
    count: int, share: float, at_most: int, seed: int
) -> None:
    rest, held = hold_out(numbered(count), share=share, at_most=at_most, seed=seed)
    assert sorted(seen(rest, 64) + seen(held, 64)) == list(range(count))
    assert 1 <= len(held) <= at_most
    assert len(rest) >= 1


def test_held_out_part_has_every_class_in_proportion() -> None:
    labels = np.repeat([0, 1, 2], [800, 150, 50])
    data = ArrayDataset(
        {"x": np.arange(1000, dtype=np.float32)[:, None]}, labels, {"x": PLAIN}, {}, np.arange(1000, dtype=np.int64)
    )
    _, held = hold_out(data, share=0.1, seed=4)
    assert np.bincount(labels[held.order]).tolist() == [80, 15, 5]


def test_held_out_part_follows_the_seed() -> None:
    data = numbered(200)
    first, again, other = (hold_out(data, seed=seed)[1] for seed in (1, 1, 2))
    assert first.order.tolist() == again.order.tolist()
    assert first.order.tolist() != other.order.tolist()


def test_held_out_part_of_a_held_out_part_keeps_the_sample_numbers() -> None:
    _, held = hold_out(numbered(100), share=0.5)
    _, part = hold_out(held, share=0.5)
    assert set(seen(part, 10)) <= set(seen(held, 10))
    for batch in part.batches(10):
        assert batch.indices is not None
        np.testing.assert_array_equal(batch.inputs["x"].ravel(), batch.indices)


def test_data_without_labels_can_be_divided() -> None:
    rest, held = hold_out(numbered(20, labels=False))
    assert (len(rest), len(held)) == (18, 2)
    assert not held.has_labels


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_share_outside_zero_to_one_is_refused(share: float) -> None:
    with pytest.raises(OptionError):
        hold_out(numbered(10), share=share)


def test_one_sample_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="at least 2 samples"):
        hold_out(numbered(1))
