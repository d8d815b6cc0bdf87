"""One picture: from the bytes of its file to pixels of the size that a network reads."""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxadmm.errors import DataError

Array = NDArray[Any]
FloatArray = NDArray[np.float64]
Size = tuple[int, int]

#: What decoders raise of bytes that are damaged, or no picture.
_FAILURES: Final = (
    *(UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error),
    *(zlib.error, Image.DecompressionBombError),
)
#: Modes of pixels that are no bytes; converting them to bytes would cut off what is above 255.
_WIDE_MODES: Final = frozenset({"F", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_ALPHA_MODES: Final = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_GREY_MODES: Final = frozenset({"1", "L", "LA", "La"})
_ORIENTATION: Final = 0x0112
#: A random crop covers this share of the picture at least, and at most all of it; its sides are in this proportion.
_LEAST_AREA: Final = 0.08
_MOST_STRETCHED: Final = 4 / 3
#: Crops that are drawn before the middle is taken, and numbers that each of them is drawn of.
BOX_DRAWS: Final = (10, 4)


class DamagedError(Exception):
    """Bytes that are no picture, or not a whole one; says why."""


@dataclass(frozen=True)
class Framing:
    """How pictures of any size become pixels of one.

    Attributes:
        grey: with one channel instead of three.
        size: height and width of the result; None: that of the picture.
        resize: length that the shorter side is brought to before the middle is cut out; None: as short as ``size``
            allows.
    """

    grey: bool = False
    size: Size | None = None
    resize: int | None = None

    @property
    def channels(self) -> int:
        return 1 if self.grey else 3

    def scaled(self, height: int, width: int) -> Size:
        """Height and width of a whole picture before the middle is cut out of it."""
        if self.size is None:
            return height, width
        if self.resize is None:
            factor = max(self.size[0] / height, self.size[1] / width)
        else:
            factor = self.resize / min(height, width)
        return max(self.size[0], round(height * factor)), max(self.size[1], round(width * factor))

    def describe(self) -> str:
        """What happens to a picture of another size, in words behind "were"."""
        if self.size is None:
            return "kept"
        length = "" if self.resize is None else f" to {self.resize}"
        size = f"{self.size[1]}x{self.size[0]} pixels"
        return f"resized (shorter side{length}, bilinear, antialiased) and centre-cropped to {size}"


@dataclass(frozen=True)
class Look:
    """What the head of a picture says.

    Attributes:
        height, width: in pixels, the right way up.
        odd: what will be done to it, in words.
    """

    height: int
    width: int
    odd: tuple[str, ...]


def look(encoded: bytes, framing: Framing, *, name: str) -> Look:
    """Look at a picture without decoding it, where its format can be checked so; others are decoded.

    Raises:
        DamagedError: it is no picture, or was cut short.
        DataError: its pixels are numbers of an unknown range.
    """
    try:
        with Image.open(BytesIO(encoded)) as image:
            odd = tuple(_oddities(image, framing))
            height, width = _upright(image)
            if image.mode in _WIDE_MODES:
                _as_bytes(image, name)
            elif image.format in ("JPEG", "MPO"):
                # A thumbnail within has an end of its own, in front of where the scan starts.
                if encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda"):
                    raise OSError("it ends before the picture does")
            elif image.format == "PNG":
                image.verify()
    except _FAILURES as error:
        raise _damaged(error) from error
    if framing.size is not None and framing.scaled(height, width) != (height, width):
        odd = (*odd, f"were {framing.describe()}")
    elif framing.size is not None and framing.size != (height, width):
        odd = (*odd, f"were centre-cropped to {framing.size[1]}x{framing.size[0]} pixels")
    return Look(height, width, odd)


def decode(encoded: bytes, framing: Framing, *, name: str, box: FloatArray | None = None, whole: bool = False) -> Array:
    """Decode a picture.

    Args:
        framing: with a size where ``box`` is given.
        name: what messages call it.
        box: numbers from 0 to 1 that a crop is drawn of, ``BOX_DRAWS``: a random part is resized to the size. None
            resizes and takes the middle.
        whole: leave the middle uncut: the whole picture, resized.

    Returns:
        uint8 ``[H, W, 1]`` or ``[H, W, 3]``.

    Raises:
        DamagedError: it is no picture, or a damaged one.
        DataError: its pixels are numbers of an unknown range.
    """
    try:
        with Image.open(BytesIO(encoded)) as image:
            full = _upright(image)
            turned = _orientation(image) > 4
            part = None if box is None else random_box(*full, box)
            wanted = framing.scaled(*full) if part is None else _magnified(full, part, framing)
            if framing.size is not None:  # reads large JPEGs at a half, a quarter or an eighth of their size
                image.draft("L" if framing.grey else None, wanted if turned else (wanted[1], wanted[0]))
            shown = _as_bytes(image, name) if image.mode in _WIDE_MODES else image
            shown.load()
            if _orientation(shown) > 1:
                ImageOps.exif_transpose(shown, in_place=True)
            shown = shown.convert("L" if framing.grey else "RGB")
            if part is not None:
                shown = _cut(shown, full, part, framing)
            elif framing.size is not None:
                shown = _fitted(shown, wanted, wanted if whole else framing.size)
            pixels = np.asarray(shown, np.uint8)
    except _FAILURES as error:
        raise _damaged(error) from error
    return pixels[..., None] if framing.grey else pixels


def random_box(height: int, width: int, draws: FloatArray) -> tuple[int, int, int, int]:
    """Draw a part of a picture: 8 to 100 % of its area, sides from 3:4 to 4:3, anywhere in it.

    The middle is taken where ten parts that were drawn do not fit in.

    Args:
        draws: numbers from 0 to 1, ``BOX_DRAWS``.

    Returns:
        Left, top, width and height.
    """
    area = height * width
    for share, proportion, x, y in draws:
        ratio = math.exp((2 * proportion - 1) * math.log(_MOST_STRETCHED))
        target = area * (_LEAST_AREA + (1 - _LEAST_AREA) * share)
        wide, high = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return int(x * (width - wide + 1)), int(y * (height - high + 1)), wide, high
    wide = min(width, round(height * _MOST_STRETCHED))
    high = min(height, round(width * _MOST_STRETCHED))
    return (width - wide) // 2, (height - high) // 2, wide, high


def crop_of(pixels: Array, framing: Framing, box: FloatArray | None) -> Array:
    """Cut a picture that is decoded and resized already: a random part of it, or the middle.

    Args:
        pixels: uint8 ``[H, W, C]``.
        framing: with a size.
        box: as for ``decode``.

    Returns:
        uint8 ``[*framing.size, C]``.
    """
    assert framing.size is not None
    full = (pixels.shape[0], pixels.shape[1])
    shown = _image_of(pixels)
    done = _fitted(shown, full, framing.size) if box is None else _cut(shown, full, random_box(*full, box), framing)
    return np.asarray(done).reshape(*framing.size, pixels.shape[2])


def resized_parts(images: Array, boxes: FloatArray) -> Array:
    """Draw a part of each picture of a batch, and bring it to the size of the whole.

    Args:
        images: uint8 ``[N, H, W, C]``, one channel or three.
        boxes: numbers from 0 to 1, ``[N, *BOX_DRAWS]``.

    Returns:
        uint8 of the same shape.
    """
    height, width = images.shape[1:3]
    result = np.empty(images.shape, np.uint8)
    for place, (pixels, draws) in enumerate(zip(images, boxes, strict=True)):
        result[place] = crop_of(pixels, Framing(size=(height, width)), draws)
    return result


def _image_of(pixels: Array) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _damaged(error: Exception) -> DamagedError:
    if isinstance(error, UnidentifiedImageError):
        return DamagedError("it is no picture")
    return DamagedError(f"it cannot be decoded: {error or type(error).__name__}")


def _orientation(image: Image.Image) -> int:
    """Which way up a picture is, 1 to 8; a PNG that does not say so in front is not read to its end for it."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(_ORIENTATION, 1) or 1)


def _upright(image: Image.Image) -> Size:
    """Height and width of a picture the right way up; what is neither JPEG nor PNG is decoded for it.

    Pillow turns TIFF as it decodes them.
    """
    if image.format not in ("JPEG", "MPO", "PNG"):
        image.load()
    return (image.width, image.height) if _orientation(image) > 4 else (image.height, image.width)


def _oddities(image: Image.Image, framing: Framing) -> Iterator[str]:
    if image.mode in _WIDE_MODES:
        yield (
            "have floats for pixels, which were brought to 0-255"
            if image.mode == "F"
            else "have 16 bits a pixel and were scaled from 0-65535 to 0-255"
        )
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        yield "have an alpha channel, which was left out"
    if image.mode == "CMYK":
        yield "are CMYK and were turned to RGB"
    if image.mode in _GREY_MODES and not framing.grey:
        yield "are grey and were given three equal channels"
    if framing.grey and image.mode not in _GREY_MODES | _WIDE_MODES:
        yield "have colours and were made grey"
    if _orientation(image) > 1:
        yield "were turned the way their EXIF data say"


def _as_bytes(image: Image.Image, name: str) -> Image.Image:
    """Pixels of 16 bits or floats as bytes."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= 65535:
        values = values / 257.0  # 65535 -> 255
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255.0
    elif not (image.mode == "F" and low >= 0 and high <= 255):
        raise DataError(
            name,
            expected="pixels of 8 or 16 bits, or floats from 0 to 1 or to 255",
            found=f"values from {low:g} to {high:g}",
            way_out="scale the images, or give arrays in an .npz file with --scale",
        )
    return Image.fromarray(np.rint(values).astype(np.uint8))


def _magnified(full: Size, part: tuple[int, int, int, int], framing: Framing) -> Size:
    """Height and width of a whole picture of which a part has the size that is wanted."""
    assert framing.size is not None  # crops are drawn for a size
    return (
        max(1, math.ceil(full[0] * framing.size[0] / part[3])),
        max(1, math.ceil(full[1] * framing.size[1] / part[2])),
    )


def _cut(image: Image.Image, full: Size, part: tuple[int, int, int, int], framing: Framing) -> Image.Image:
    """A part of a picture that was read at its full size or a smaller one, resized."""
    assert framing.size is not None
    x, y = image.width / full[1], image.height / full[0]
    left, top, width, height = part
    box = (left * x, top * y, min(image.width, (left + width) * x), min(image.height, (top + height) * y))
    return image.resize((framing.size[1], framing.size[0]), Image.Resampling.BILINEAR, box=box)


def _fitted(image: Image.Image, scaled: Size, size: Size) -> Image.Image:
    """The middle of an image that was resized."""
    if (image.height, image.width) != scaled:
        image = image.resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR)  # which Pillow antialiases
    if scaled == size:
        return image
    left, top = (scaled[1] - size[1]) // 2, (scaled[0] - size[0]) // 2
    return image.crop((left, top, left + size[1], top + size[0]))
