"""From stored pixels to what a model reads: scaling, standardisation, augmentation; whole batches at a time."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import OptionError
from onnxadmm.train.data.pictures import BOX_DRAWS, resized_parts

Array = NDArray[Any]


@dataclass(frozen=True)
class Transform:
    """y = x factor + offset, then the model's dtype.

    Attributes:
        factor: float32, broadcasts against a batch; None leaves values as they are.
        offset: the same shape as ``factor``.
        dtype: numpy dtype of the model's input.
    """

    factor: NDArray[np.float32] | None
    offset: NDArray[np.float32] | None
    dtype: np.dtype[Any]

    def apply(self, samples: Array) -> Array:
        """Convert a batch; the result is C-contiguous and never the argument's memory when values change."""
        if self.factor is None or self.offset is None:
            return np.ascontiguousarray(samples, self.dtype)
        # Bytes are moved to where they belong before they are four times as large: ten times as fast for pictures.
        values = np.multiply(np.ascontiguousarray(samples), self.factor, dtype=np.float32)
        values += self.offset
        return np.ascontiguousarray(values, self.dtype)


@dataclass(frozen=True)
class Drawn:
    """What was drawn at random for each image of a batch; None: nothing of that kind.

    Attributes:
        boxes: numbers that a part of the image is drawn of, ``[N, *BOX_DRAWS]``.
        shifts: where the size is cut out of the padded image, rows and columns, int ``[2, N]``.
        turned: which images are mirrored, bool ``[N]``.
    """

    boxes: NDArray[np.float64] | None
    shifts: NDArray[np.int64] | None
    turned: NDArray[np.bool_] | None

    def of(self, places: NDArray[np.int64]) -> "Drawn":
        """What was drawn for some of the images."""
        return Drawn(
            None if self.boxes is None else self.boxes[places],
            None if self.shifts is None else self.shifts[:, places],
            None if self.turned is None else self.turned[places],
        )


@dataclass(frozen=True)
class Augmentation:
    """Random changes of images that keep their labels.

    Attributes:
        flip: mirror each image left to right with probability 1/2.
        crop: pad by this many zero pixels on every side, then cut the size out again at random; 0 does not.
        channels_last: layout of the batches, ``[N, H, W, C]`` instead of ``[N, C, H, W]``.
        part: take a random part of each image and bring it to this size, which is that of the model; 0 does not.
    """

    flip: bool
    crop: int
    channels_last: bool
    part: int = 0

    def draw(self, count: int, generator: np.random.Generator) -> Drawn:
        """Draw what is done to so many images."""
        boxes = generator.random((count, *BOX_DRAWS)) if self.part else None
        shifts = generator.integers(0, 2 * self.crop + 1, (2, count)) if self.crop else None
        return Drawn(boxes, shifts, generator.random(count) < 0.5 if self.flip else None)

    def apply(self, images: Array, drawn: Drawn) -> Array:
        """Change a batch ``[N, C, H, W]`` or ``[N, H, W, C]``; the argument stays as it is."""
        rows, columns = (1, 2) if self.channels_last else (2, 3)
        if drawn.boxes is not None:
            last = images if self.channels_last else np.moveaxis(images, 1, 3)
            parts = resized_parts(last, drawn.boxes)
            images = parts if self.channels_last else np.moveaxis(parts, 3, 1)
        if drawn.shifts is not None:
            height, width = images.shape[rows], images.shape[columns]
            margin = [(0, 0)] * 4
            margin[rows] = margin[columns] = (self.crop, self.crop)
            windows = np.lib.stride_tricks.sliding_window_view(np.pad(images, margin), (height, width), (rows, columns))
            y, x = drawn.shifts
            each = np.arange(len(images))
            # [N, rows, columns, C, H, W], or with C in front of rows: either way [N, C, H, W] is picked.
            picked = windows[each, y, x] if self.channels_last else windows[each, :, y, x]
            images = np.moveaxis(picked, 1, 3) if self.channels_last else picked
        if drawn.turned is not None:
            images = np.array(images, order="C")
            images[drawn.turned] = np.flip(images[drawn.turned], columns)
        return images


def parse_augmentation(text: str, *, channels_last: bool) -> Augmentation | None:
    """Read ``"flip,crop4"`` or ``"rrc224,flip"``; None for an empty text.

    Raises:
        OptionError: a word is neither ``flip`` nor ``cropN`` nor ``rrcN``.
    """
    flip, crop, part = False, 0, 0
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        match = re.fullmatch(r"(crop|rrc)([1-9]\d{0,3})", word)
        if word == "flip":
            flip = True
        elif match is not None and match.group(1) == "crop":
            crop = int(match.group(2))
        elif match is not None:
            part = int(match.group(2))
        else:
            raise OptionError(
                "--augment",
                expected="flip, cropN (N pixels, e.g. crop4) and rrcN (random parts, resized to N pixels), "
                "separated by commas",
                found=word,
                way_out="write flip,crop4 or rrc224,flip",
            )
    return Augmentation(flip, crop, channels_last, part) if words else None


def make_transform(
    *,
    stored: np.dtype[Any],
    dtype: np.dtype[Any],
    channel_axis: int | None,
    channels: int,
    rank: int,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    scale: float | None,
) -> Transform:
    """Compose (x scale - mean) / std into one product and one sum.

    Args:
        stored: dtype the samples are kept in; uint8 is scaled by 1/255 unless ``scale`` is given.
        dtype: dtype of the model's input; scaling and standardisation need a floating one.
        channel_axis: axis of a batch that ``mean`` and ``std`` run along; None allows single numbers only.
        channels: length of that axis.
        rank: number of axes of a batch.
        mean: one number, or one per channel, after scaling.
        std: the same.
        scale: factor on the stored values.

    Raises:
        OptionError: wrong number of values, a deviation or scale of 0, or values for an input of integers.
    """
    asked = mean is not None or std is not None or scale is not None
    if dtype.kind != "f":
        if asked:
            raise OptionError(
                "--mean, --std and --scale",
                expected="a model with a floating-point input",
                found=f"an input of {dtype}",
                way_out="leave them out",
            )
        return Transform(None, None, dtype)
    factor = scale if scale is not None else (1.0 / 255.0 if stored == np.uint8 else 1.0)
    if not asked and factor == 1.0:
        return Transform(None, None, dtype)
    means = _per_channel("--mean", mean, 0.0, channels, channel_axis is not None)
    deviations = _per_channel("--std", std, 1.0, channels, channel_axis is not None)
    finite = np.isfinite(factor) and np.isfinite(means).all() and np.isfinite(deviations).all()
    if not finite or factor == 0 or not (deviations > 0).all():
        raise OptionError(
            "--mean, --std and --scale",
            expected="finite numbers, std above 0, scale not 0",
            found=f"mean {means.tolist()}, std {deviations.tolist()}, scale {factor}",
            way_out="give the statistics of the training data on the 0-1 scale",
        )
    shape = [1] * rank
    if channel_axis is not None and max(means.size, deviations.size) > 1:
        shape[channel_axis] = channels
        means, deviations = np.broadcast_to(means, channels), np.broadcast_to(deviations, channels)
    return Transform(
        (factor / deviations).astype(np.float32).reshape(shape),
        (-means / deviations).astype(np.float32).reshape(shape),
        dtype,
    )


def _per_channel(
    name: str, values: tuple[float, ...] | None, default: float, channels: int, has_channels: bool
) -> NDArray[np.float64]:
    array = np.array((default,) if values is None else values, np.float64)
    if array.size != 1 and (not has_channels or array.size != channels):
        raise OptionError(
            name,
            expected=f"1 number or {channels}, one per channel" if has_channels else "1 number",
            found=f"{array.size} numbers",
            way_out="give one number per channel of the model's input",
        )
    return array
