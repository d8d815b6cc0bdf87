from typing import Any

import numpy as np
import pytest

from onnxadmm.errors import OptionError
from onnxadmm.train.data.images import Augmentation, Transform, make_transform, parse_augmentation

FLOAT = np.dtype(np.float32)
BYTE = np.dtype(np.uint8)


def transform(
    *, stored: np.dtype[Any] = BYTE, dtype: np.dtype[Any] = FLOAT, axis: int | None = 1, **given: Any
) -> Transform:
    options: dict[str, Any] = {"mean": None, "std": None, "scale": None, **given}
    return make_transform(stored=stored, dtype=dtype, channel_axis=axis, channels=3, rank=4, **options)


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)


def test_bytes_are_scaled_to_zero_to_one() -> None:
    np.testing.assert_allclose(transform().apply(IMAGES), IMAGES / 255.0, rtol=1e-6)


def test_floats_are_not_scaled() -> None:
    floats = IMAGES.astype(np.float32)
    assert transform(stored=FLOAT).apply(floats) is floats


def test_mean_and_deviation_run_along_the_channels_of_either_layout() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    expected = (IMAGES / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(transform(mean=mean, std=std).apply(IMAGES), expected, atol=1e-6)
    last = transform(mean=mean, std=std, axis=3).apply(np.moveaxis(IMAGES, 1, 3))
    np.testing.assert_allclose(last, np.moveaxis(expected, 1, 3), atol=1e-6)


def test_scale_overrides_the_default_and_comes_before_the_mean() -> None:
    np.testing.assert_allclose(transform(scale=2.0, mean=(1.0,)).apply(IMAGES), IMAGES * 2.0 - 1.0, atol=1e-4)


def test_results_are_contiguous_in_the_models_dtype() -> None:
    result = transform(mean=(0.5,)).apply(np.moveaxis(IMAGES, 1, 3)[:, ::2].transpose(0, 3, 1, 2))
    assert result.flags.c_contiguous
    assert result.dtype == np.float32


def test_integers_go_through_unchanged() -> None:
    assert transform(dtype=BYTE).apply(IMAGES).tolist() == IMAGES.tolist()


@pytest.mark.parametrize(
    "given",
    [
        {"mean": (0.1, 0.2)},
        {"std": (0.1, 0.2, 0.3, 0.4)},
        {"std": (0.0,)},
        {"scale": 0.0},
        {"std": (-1.0,)},
        {"mean": (float("nan"),)},
        {"scale": float("inf")},
    ],
)
def test_statistics_that_cannot_be_used_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        transform(**given)


def test_statistics_for_integers_are_refused() -> None:
    with pytest.raises(OptionError, match="uint8"):
        transform(dtype=BYTE, mean=(0.5,))


def test_crop_shifts_by_at_most_its_margin_and_fills_with_zeros() -> None:
    images = np.arange(1, 2 * 3 * 6 * 7 + 1, dtype=np.int64).reshape(2, 3, 6, 7)
    change = Augmentation(flip=False, crop=2, channels_last=False)
    seen = set()
    padded = np.pad(images, [(0, 0), (0, 0), (2, 2), (2, 2)])
    for seed in range(200):
        result = change.apply(images, change.draw(len(images), np.random.default_rng(seed)))
        for index in range(2):
            matches = [
                (y, x)
                for y in range(5)
                for x in range(5)
                if np.array_equal(padded[index, :, y : y + 6, x : x + 7], result[index])
            ]
            assert len(matches) == 1
            seen.add(matches[0])
    assert len(seen) == 25


def test_flip_mirrors_about_half_of_the_images_as_a_whole() -> None:
    images = np.arange(400 * 3 * 2 * 4).reshape(400, 3, 2, 4)
    change = Augmentation(flip=True, crop=0, channels_last=False)
    result = change.apply(images, change.draw(400, np.random.default_rng(0)))
    turned = np.array([np.array_equal(result[i], images[i, :, :, ::-1]) for i in range(400)])
    kept = np.array([np.array_equal(result[i], images[i]) for i in range(400)])
    assert (turned ^ kept).all()
    assert 150 < turned.sum() < 250


@pytest.mark.parametrize("text", ["flip", "crop3", "flip,crop3"])
def test_both_layouts_are_augmented_alike(text: str) -> None:
    first = parse_augmentation(text, channels_last=False)
    last = parse_augmentation(text, channels_last=True)
    assert first is not None
    assert last is not None
    many = np.tile(IMAGES, (10, 1, 1, 1))
    a = first.apply(many, first.draw(len(many), np.random.default_rng(5)))
    b = last.apply(np.moveaxis(many, 1, 3), last.draw(len(many), np.random.default_rng(5)))
    assert a.shape == many.shape
    assert not np.array_equal(a, many)
    np.testing.assert_array_equal(a, np.moveaxis(b, 3, 1))


def test_augmentation_leaves_its_argument_alone() -> None:
    before = IMAGES.copy()
    change = Augmentation(flip=True, crop=4, channels_last=False)
    change.apply(IMAGES, change.draw(len(IMAGES), np.random.default_rng(0)))
    np.testing.assert_array_equal(IMAGES, before)


@pytest.mark.parametrize("text", ["flop", "crop", "crop0", "crop-1", "crop99999", "flip;crop4"])
def test_unknown_words_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="flip,crop4"):
        parse_augmentation(text, channels_last=False)


def test_empty_text_is_no_augmentation() -> None:
    assert parse_augmentation("", channels_last=False) is None
