"""The usual ways to prepare stored values for a network: scale, mean and deviation, order of channels and of pixels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.run.recipe import Preprocessing
from onnxadmm.train.data.images import Transform, make_transform

Array = NDArray[Any]
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Usual:
    """A usual range of what networks read: with u from 0 to 1, ``(u - mean) / std``.

    Attributes:
        name: what it is called.
        mean, std: one number, or red, green and blue.
        rare: whether others are more likely that do as well.
    """

    name: str
    mean: Numbers
    std: Numbers
    rare: bool = False


_ANY: Final = (
    Usual("values from 0 to 1", (0.0,), (1.0,)),
    Usual("values from -1 to 1", (0.5,), (0.5,)),
    Usual("values from 0 to 255", (0.0,), (1 / 255,), rare=True),
)
_COLOUR: Final = (
    Usual("ImageNet's", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Usual("CIFAR-10's", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    Usual(
        "values from 0 to 255 less ImageNet's mean",
        (123.68 / 255, 116.779 / 255, 103.939 / 255),
        (1 / 255,) * 3,
        rare=True,
    ),
)
#: Dark on bright and bright on dark are the same digits to whoever looks at them: 1 - u is tried as well.
_GREY: Final = (
    Usual("MNIST's", (0.1307,), (0.3081,)),
    Usual("values from 0 to 1, dark for bright", (1.0,), (-1.0,), rare=True),
    Usual("MNIST's, dark for bright", (0.8693,), (-0.3081,), rare=True),
)
_FULL_SCALES: Final = (1.0, 255.0, 1023.0, 4095.0, 65535.0)
#: Share of the full range below which another range is likely.
_FAINT: Final = 0.5
#: Samples whose mean and deviation are those of all.
_ENOUGH: Final = 128
#: Means and deviations that one would still write down.
_MOST_NUMBERS: Final = 16


@dataclass(frozen=True)
class Order:
    """Another order of what is stored.

    Attributes:
        words: what would have to be changed in the data.
        reverses: whether the channels are reversed.
        arranged: samples in that order, of the same shape, given samples and the axis of their channels.
    """

    words: str
    reverses: bool
    arranged: Callable[[Array, int], Array]


@dataclass(frozen=True)
class Way:
    """One way to prepare stored samples.

    Attributes:
        name: of the usual range, or what it is otherwise.
        chosen: scale, mean and std.
        rare: whether others are more likely that do as well.
        order: another order of what is stored; None: as it is.
    """

    name: str
    chosen: Preprocessing
    rare: bool = False
    order: Order | None = None

    @property
    def options(self) -> dict[str, str]:
        """The options that ask for scale, mean and std, with their values."""
        chosen = self.chosen
        values = {
            "--scale": None if chosen.scale is None else (chosen.scale,),
            "--mean": chosen.mean,
            "--std": chosen.std,
        }
        return {
            option: ",".join(f"{number:.6g}" for number in numbers)
            for option, numbers in values.items()
            if numbers is not None
        }

    def samples(self, stored: Array, axis: int | None) -> Array:
        """Stored samples in the order of this way; ``axis`` is that of their channels."""
        return stored if self.order is None else self.order.arranged(stored, axis or 1)

    def transform(self, stored: Array, axis: int | None, dtype: np.dtype[Any]) -> Transform:
        """What is done to stored samples so that the model reads ``dtype``."""
        mean, std = (None if part is None else tuple(part) for part in (self.chosen.mean, self.chosen.std))
        return make_transform(
            stored=stored.dtype,
            dtype=dtype,
            channel_axis=axis,
            channels=stored.shape[axis] if axis is not None else 1,
            rank=stored.ndim,
            mean=mean,
            std=std,
            scale=self.chosen.scale,
        )


def usual_ways(stored: Array, axis: int | None, given: Preprocessing) -> Iterator[Way]:
    """Yield what was asked for, then the usual ways in the order that is stored.

    Args:
        stored: samples as they are stored, in the model's layout, floats or integers ``[N, ...]``.
        axis: of their channels; None where they have none.
        given: what was asked for.
    """
    yield Way("as given", replace(given, augment=""))
    channels = stored.shape[axis] if axis is not None and stored.ndim == 4 else 1
    kinds = (*_COLOUR, *_ANY) if channels == 3 else (*_GREY, *_ANY) if channels == 1 else _ANY
    for factor, start in _to_unit(stored):
        for kind in kinds:
            faint = factor * float(stored.max()) + start < _FAINT
            yield Way(kind.name, _stated(kind, factor, start, stored.dtype), kind.rare or faint)
    if float(stored.min()) < 0:
        yield Way("as they are stored", Preprocessing())
    if axis is not None:
        yield Way("their own mean and deviation", _own(stored, axis), rare=True)


def other_orders(way: Way, stored: Array, axis: int | None) -> Iterator[Way]:
    """Yield a way with what is stored in other orders, as far as these fit pictures of this shape."""
    if stored.ndim != 4 or axis not in (1, 3):
        return
    for order in _ORDERS:
        try:
            fits = order.arranged(stored[:1], axis).shape == stored[:1].shape
        except ValueError:
            continue
        if fits and (stored.shape[axis] == 3 or order is _TURNED):
            yield replace(way, chosen=_reversed(way.chosen) if order.reverses else way.chosen, order=order)


def _to_unit(stored: Array) -> Iterator[tuple[float, float]]:
    """Factors and starts that may bring stored values to 0 to 1: u = factor x + start."""
    low, high = float(stored.min()), float(stored.max())
    if low < 0:
        if low >= -1.001 and high <= 1.001:
            yield 0.5, 0.5
        return
    full = next((scale for scale in _FULL_SCALES if high <= scale), None)
    if stored.dtype == np.uint8:
        full = 255.0
    if full is not None:
        yield 1.0 / full, 0.0
    # Digits of 0 to 16 are stored in bytes, and percentages.
    if 0 < high < _FAINT * (full or np.inf):
        yield 1.0 / high, 0.0


def _stated(kind: Usual, factor: float, start: float, dtype: np.dtype[Any]) -> Preprocessing:
    """The options for a usual range: (factor x + start - mean) / std, without what would be so anyway."""
    std = np.array(kind.std, np.float64)
    mean = np.array(kind.mean, np.float64) - start
    if std[0] < 0:  # a deviation is above 0, a scale need not be
        factor, mean, std = -factor, -mean, -std
    if std[0] == 1 / 255:
        factor, mean, std = 255 * factor, 255 * mean, np.ones(1)
    usual = 1 / 255 if dtype == np.uint8 else 1.0
    return Preprocessing(
        scale=None if np.isclose(factor, usual) else _rounded(factor),
        mean=None if not mean.any() else tuple(map(_rounded, mean)),
        std=None if (std == 1).all() else tuple(map(_rounded, std)),
    )


def _own(stored: Array, axis: int) -> Preprocessing:
    """Every channel, or column, with its own mean 0 and deviation 1."""
    stored = stored[:_ENOUGH]
    scale = 1 / 255 if stored.dtype == np.uint8 else 1.0
    others = tuple(place for place in range(stored.ndim) if place != axis)
    if stored.shape[axis] > _MOST_NUMBERS:
        others = tuple(range(stored.ndim))
    mean = np.atleast_1d(scale * stored.mean(axis=others, dtype=np.float64))
    std = np.atleast_1d(scale * stored.std(axis=others, dtype=np.float64))
    return Preprocessing(
        mean=tuple(map(_rounded, mean)), std=tuple(_rounded(value) if value > 0 else 1.0 for value in std)
    )


def _reversed(chosen: Preprocessing) -> Preprocessing:
    """Mean and deviation of channels that are reversed."""
    mean, std = (None if part is None else tuple(part)[::-1] for part in (chosen.mean, chosen.std))
    return replace(chosen, mean=mean, std=std)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _turned(samples: Array, axis: int) -> Array:
    return samples.swapaxes(*((2, 3) if axis == 1 else (1, 2)))


def _from_channels_last(samples: Array, axis: int) -> Array:
    """Samples that lie in memory as [H, W, C] though they were read as [C, H, W]; or the other way round."""
    count = len(samples)
    if axis == 1:
        _, channels, height, width = samples.shape
        return samples.reshape(count, height, width, channels).transpose(0, 3, 1, 2)
    _, height, width, channels = samples.shape
    return samples.reshape(count, channels, height, width).transpose(0, 2, 3, 1)


_TURNED: Final = Order("rows and columns of the pictures exchanged", False, _turned)
_ORDERS: Final = (
    Order("the colour channels in the opposite order", True, lambda samples, axis: np.flip(samples, axis)),
    _TURNED,
    Order("the pictures read channels last where they were read channels first, or the other way round", False,
          _from_channels_last),
)  # fmt: skip
