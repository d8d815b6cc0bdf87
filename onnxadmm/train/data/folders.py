"""Folders of class folders of images: which classes there are, and every image as bytes of one size."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from onnxadmm.errors import DataError
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.data.storage import allocate

Array = NDArray[Any]
Size = tuple[int, int]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
#: Images whose decoding is under way before the first of them is waited for.
_DECODED_AT_ONCE = 1024
#: Modes of pixels that are no bytes; converting them to bytes would cut off what is above 255.
_WIDE_MODES = frozenset({"F", "I", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True)
class ImageFolder:
    """Decoded images.

    Attributes:
        images: uint8 ``[N, H, W, 1]`` or ``[N, H, W, 3]``.
        labels: index of the class of each, int64 ``[N]``.
        classes: names of the class folders, in the order of their numbers.
        notes: sentences on what was done.
    """

    images: Array
    labels: Array
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read_folder(path: Path, *, grey: bool, size: Size | None, limit: int) -> ImageFolder:
    """Decode the images of class folders, ``CLASS/NAME.jpg`` or ``CLASS/FOLDER/NAME.jpg``.

    Class folders are in alphabetical order; names that differ in a number alone are in the order of their numbers.

    Args:
        grey: with one channel instead of three.
        size: height and width that images of another size are brought to: resized so that the shorter side fits,
            bilinear and antialiased, and cut out of the middle; None refuses images of different sizes.
        limit: most bytes of images in memory, see ``allocate``.

    Raises:
        DataError: there are no images, or one cannot be decoded or used.
    """
    path = _folder_of_classes(path)
    classes, notes = _in_order(_folders(path))
    files = [(file, index) for index, name in enumerate(classes) for file in _images_in(path / name)]
    if not files:
        raise DataError(
            str(path),
            expected="a folder of class folders with images",
            found=f"{len(classes)} folders without images",
            way_out="arrange the images as CLASS/NAME.jpg",
        )
    first, _ = _read_image(files[0][0], grey=grey, size=size)
    images = allocate(str(path), (len(files), *first.shape), np.uint8, limit=limit)

    def decode(index: int) -> list[str]:
        file = files[index][0]
        image, done = _read_image(file, grey=grey, size=size)
        if image.shape != first.shape:
            raise DataError(
                str(file),
                expected=f"{first.shape[1]}x{first.shape[0]} pixels as {files[0][0].name}",
                found=f"{image.shape[1]}x{image.shape[0]}",
                way_out="resize all images to one size, as the model's input is open",
            )
        images[index] = image
        return done

    changes: Counter[str] = Counter()
    # Decoders work outside the interpreter's lock. In order, so that the first bad file is the one that is named.
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(files), _DECODED_AT_ONCE):
            for done in pool.map(decode, range(start, min(start + _DECODED_AT_ONCE, len(files)))):
                changes.update(done)
    labels = np.array([index for _, index in files], np.int64)
    empty = [name for index, name in enumerate(classes) if not (labels == index).any()]
    notes += [f"{count:,} of {len(files):,} images {change}." for change, count in changes.items()]
    notes += [f"No images in the class folders {', '.join(empty)} of {path}."] if empty else []
    return ImageFolder(images, labels, tuple(classes), tuple(notes))


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _folder_of_classes(path: Path) -> Path:
    """The folder itself, or its only folder where the class folders stand in that one."""
    names = _folders(path)
    if len(names) == 1 and not any(_is_image(file) for file in (path / names[0]).iterdir()):
        inside = path / names[0]
        if len(_folders(inside)) > 1:
            return inside
    return path


def _in_order(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Class names in the order of their numbers, and a sentence where that is not the alphabetical one."""
    parts = [re.fullmatch(r"(\D*)(\d+)(\D*)", name) for name in names]
    if not names or not all(parts) or len({(part[1], part[3]) for part in parts if part}) > 1:
        return list(names), []
    ordered = sorted(names, key=lambda name: (int("".join(filter(str.isdigit, name))), name))
    if ordered == list(names):
        return ordered, []
    shown = ", ".join(ordered[:12]) + ("..." if len(ordered) > 12 else "")
    return ordered, [f"Class folders were taken in the order of their numbers, not of the alphabet: {shown}."]


def _images_in(folder: Path) -> Iterator[Path]:
    """The images of a class, those one folder deeper included."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from (file for file in sorted(entry.iterdir()) if _is_image(file))
        elif _is_image(entry):
            yield entry


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()


def _read_image(path: Path, *, grey: bool, size: Size | None) -> tuple[Array, list[str]]:
    """One image as uint8 ``[H, W, 1]`` or ``[H, W, 3]``, and what was done to it."""
    done: list[str] = []
    try:
        with Image.open(path) as image:
            wide = image.mode in _WIDE_MODES
            whole = _bytes_of(path, image, done) if wide else image
            shown = whole.convert("L" if grey else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(
            str(path), expected="an image", found=f"one that cannot be decoded ({error})", way_out="remove or repair it"
        ) from error
    if size is not None and (shown.height, shown.width) != size:
        shown = _fitted(shown, size)
        done.append(
            f"were resized (shorter side, bilinear, antialiased) and centre-cropped to {size[1]}x{size[0]} pixels"
        )
    pixels = np.asarray(shown, np.uint8)
    return (pixels[..., None] if grey else pixels), done


def _bytes_of(path: Path, image: Image.Image, done: list[str]) -> Image.Image:
    """Pixels of 16 bits or floats as bytes."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= 65535:
        values = values / 257.0  # 65535 -> 255
        done.append("have 16 bits a pixel and were scaled from 0-65535 to 0-255")
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255.0
        done.append("have floats from 0 to 1 and were scaled to 0-255")
    elif image.mode == "F" and low >= 0 and high <= 255:
        done.append("have floats from 0 to 255 and were rounded")
    else:
        raise DataError(
            str(path),
            expected="pixels of 8 or 16 bits, or floats from 0 to 1 or to 255",
            found=f"values from {low:g} to {high:g}",
            way_out="scale the images, or give arrays in an .npz file with --scale",
        )
    return Image.fromarray(np.rint(values).astype(np.uint8))


def _fitted(image: Image.Image, size: Size) -> Image.Image:
    """The middle of an image whose shorter side was brought to the size."""
    height, width = size
    factor = max(height / image.height, width / image.width)
    scaled = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)  # which Pillow antialiases
    return image.crop((left, top, left + width, top + height))
