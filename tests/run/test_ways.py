"""The usual ways to prepare samples: each does what its name says, and its options say the same."""

from typing import Any

import numpy as np
import pytest

import onnxadmm as oa
from onnxadmm.run.ways import Way, other_orders, usual_ways

FLOAT = np.dtype(np.float32)
GIVEN = oa.Preprocessing()


def pictures(dtype: Any, channels: int, *, last: bool = False) -> Any:
    generator = np.random.default_rng(5)
    shape = (6, 4, 4, channels) if last else (6, channels, 4, 4)
    found = generator.integers(0, 256, shape)
    found.reshape(-1)[:2] = 0, 255
    return found.astype(np.uint8) if dtype == np.uint8 else (found / 255).astype(dtype)


def named(name: str, stored: Any, axis: int) -> Way:
    (way,) = [way for way in usual_ways(stored, axis, GIVEN) if way.name == name]
    return way


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("name", "channels", "wanted"),
    [
        ("values from 0 to 1", 3, lambda u: u),
        ("values from -1 to 1", 3, lambda u: 2 * u - 1),
        ("values from 0 to 255", 1, lambda u: 255 * u),
        ("values from 0 to 1, dark for bright", 1, lambda u: 1 - u),
        ("MNIST's", 1, lambda u: (u - 0.1307) / 0.3081),
        ("MNIST's, dark for bright", 1, lambda u: (1 - u - 0.1307) / 0.3081),
        ("ImageNet's", 3, lambda u: (u - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])),
        ("CIFAR-10's", 3, lambda u: (u - [0.4914, 0.4822, 0.4465]) / np.array([0.247, 0.2435, 0.2616])),
        ("values from 0 to 255 less ImageNet's mean", 3, lambda u: 255 * u - np.array([123.68, 116.779, 103.939])),
        ("their own mean and deviation", 3, lambda u: (u - u.mean((0, 1, 2))) / u.std((0, 1, 2))),
    ],
)
def test_a_way_makes_what_its_name_says(name: str, channels: int, wanted: Any, dtype: Any, last: bool) -> None:
    axis = 3 if last else 1
    stored = pictures(dtype, channels, last=last)
    unit = np.moveaxis(stored, axis, 3).astype(np.float64) / (255 if dtype == np.uint8 else 1)
    made = named(name, stored, axis).transform(stored, axis, FLOAT).apply(stored)
    expected = np.moveaxis(wanted(unit), 3, axis)
    assert made == pytest.approx(expected, rel=2e-3, abs=2e-3 * float(np.abs(expected).max()))


def test_the_options_of_a_way_ask_for_it_and_for_nothing_more() -> None:
    stored = pictures(np.uint8, 3)
    assert named("values from 0 to 1", stored, 1).options == {}
    assert named("values from 0 to 255", stored, 1).options == {"--scale": "1"}
    assert named("CIFAR-10's", stored, 1).options == {
        "--mean": "0.4914,0.4822,0.4465",
        "--std": "0.247,0.2435,0.2616",
    }
    for way in usual_ways(stored, 1, GIVEN):
        numbers = {option[2:]: [float(each) for each in text.split(",")] for option, text in way.options.items()}
        scale = numbers.pop("scale", [None])[0]  # type: ignore[list-item]
        again = Way("", oa.Preprocessing(scale=scale, **numbers))  # type: ignore[arg-type]
        made, wanted = (each.transform(stored, 1, FLOAT).apply(stored) for each in (again, way))
        assert made == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_what_was_asked_for_comes_first() -> None:
    asked = oa.Preprocessing(mean=[0.1], scale=3.0, augment="flip")
    first = next(usual_ways(pictures(np.uint8, 3), 1, asked))
    assert first.options == {"--scale": "3", "--mean": "0.1"}


@pytest.mark.parametrize(
    ("high", "dtype", "scales"),
    [(16, np.uint8, [1 / 255, 1 / 16]), (255, np.uint8, [1 / 255]), (4000, np.int32, [1 / 4095]), (1, np.float32, [1])],
)
def test_stored_values_of_any_range_are_brought_to_0_to_1(high: float, dtype: Any, scales: list[float]) -> None:
    stored = np.linspace(0, high, 64).reshape(4, 1, 4, 4).astype(dtype)
    ways = [way for way in usual_ways(stored, 1, GIVEN) if way.name == "values from 0 to 1"]
    made = [way.transform(stored, 1, FLOAT).apply(stored).max() for way in ways]
    assert made == pytest.approx([scale * high for scale in scales], rel=1e-3)


def test_values_below_0_are_tried_as_they_are_stored() -> None:
    stored = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)
    assert [way.name for way in usual_ways(stored, 1, GIVEN)][1:] == [
        "as they are stored",
        "their own mean and deviation",
    ]
    names = [way.name for way in usual_ways(stored / np.abs(stored).max(), 1, GIVEN)]
    assert "values from 0 to 1" in names
    made = named("values from 0 to 1", stored / np.abs(stored).max(), 1).transform(stored, 1, FLOAT)
    assert made.apply(stored / np.abs(stored).max()) == pytest.approx((stored / np.abs(stored).max() + 1) / 2, abs=1e-6)


@pytest.mark.parametrize("last", [False, True])
def test_channels_are_reversed_with_their_means(last: bool) -> None:
    axis = 3 if last else 1
    stored = pictures(np.uint8, 3, last=last)
    way = named("ImageNet's", stored, axis)
    (reversed_,) = [each for each in other_orders(way, stored, axis) if each.order and each.order.reverses]
    made = reversed_.transform(stored, axis, FLOAT).apply(reversed_.samples(stored, axis))
    assert np.flip(made, axis) == pytest.approx(way.transform(stored, axis, FLOAT).apply(stored), abs=1e-6)
    assert reversed_.options["--mean"] == "0.406,0.456,0.485"


def test_pictures_read_in_the_wrong_layout_are_read_in_the_right_one() -> None:
    right = pictures(np.uint8, 3)
    wrong = np.ascontiguousarray(right.transpose(0, 2, 3, 1)).reshape(right.shape)
    orders = [way.samples(wrong, 1) for way in other_orders(Way("", GIVEN), wrong, 1)]
    assert any((each == right).all() for each in orders)
    right = pictures(np.uint8, 3, last=True)
    wrong = np.ascontiguousarray(right.transpose(0, 3, 1, 2)).reshape(right.shape)
    orders = [way.samples(wrong, 3) for way in other_orders(Way("", GIVEN), wrong, 3)]
    assert any((each == right).all() for each in orders)


@pytest.mark.parametrize(("shape", "orders"), [((2, 3, 4, 4), 3), ((2, 3, 4, 6), 2), ((2, 1, 4, 4), 1), ((2, 8), 0)])
def test_orders_that_do_not_fit_are_not_tried(shape: tuple[int, ...], orders: int) -> None:
    stored = np.zeros(shape, np.float32)
    assert len(list(other_orders(Way("", GIVEN), stored, 1))) == orders


def test_a_wide_table_has_one_mean_for_all_columns() -> None:
    generator = np.random.default_rng(0)
    for columns, numbers in ((5, 5), (100, 1)):
        stored = generator.normal(3, 2, (50, columns)).astype(np.float32)
        way = named("their own mean and deviation", stored, 1)
        assert len(way.options["--mean"].split(",")) == numbers
