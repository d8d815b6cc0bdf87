"""A made picture set in the shape of ImageNet: drawn shapes with textures, 40 classes, pictures of many sizes.

Run: ``python samples/imagenet/make_pictures.py OUT [--each N] [--classes N]``. Writes the same files three times, byte
by byte: as class folders (``OUT/folder``), as tar shards in the WebDataset layout (``OUT/tar``), and, where pyarrow is
installed, as a Parquet table (``OUT/parquet``). Pictures are the same in every run with the same Pillow.
"""

import argparse
import importlib
import importlib.util
import io
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SHAPES = ("disc", "square", "triangle", "star", "ring", "cross", "crescent", "bar")
TEXTURES = ("plain", "stripes", "checks", "dots", "rays")
CLASSES = tuple(f"{shape}_{texture}" for shape in SHAPES for texture in TEXTURES)
#: Shortest and longest side of a picture, in pixels.
SIDES = (48, 160)
#: Samples in a tar shard.
SHARD = 100

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An encoded picture.

    Attributes:
        name: of its file.
        label: number of its class.
        encoded: the bytes of the file.
    """

    name: str
    label: int
    encoded: bytes


def pictures(*, classes: int = len(CLASSES), each: int = 100, first: int = 0) -> Iterator[Picture]:
    """Draw pictures, class by class.

    Args:
        classes: how many of them, from the first.
        each: pictures of a class.
        first: number of the first picture of each class: others are other pictures.
    """
    for label in range(classes):
        for number in range(first, first + each):
            draws = np.random.default_rng([label, number])
            image = drawn(label, draws)
            odd = int(draws.integers(12))
            file = io.BytesIO()
            if odd == 0:
                image.convert("L").save(file, "JPEG", quality=92)
            elif odd == 1:
                image.convert("CMYK").save(file, "JPEG", quality=92)
            elif odd == 2:
                image.convert("RGBA").save(file, "PNG")
            elif odd == 3:  # lies on its side, and says so
                exif = Image.Exif()
                exif[0x0112] = 6
                image.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=92, exif=exif)
            else:
                image.save(file, "JPEG", quality=92)
            suffix = "png" if odd == 2 else "jpg"
            yield Picture(f"{CLASSES[label]}_{number:05}.{suffix}", label, file.getvalue())


def drawn(label: int, draws: np.random.Generator) -> Image.Image:
    """One picture of a class, at a place, an angle, a size and in colours of its own."""
    width, height = (int(side) for side in draws.integers(*SIDES, 2))
    shape, texture = divmod(label, len(TEXTURES))
    ink, paper, ground = _colours(draws)
    size = min(width, height)
    radius = size * draws.uniform(0.3, 0.45)
    middle = (width / 2 + size * draws.uniform(-0.05, 0.05), height / 2 + size * draws.uniform(-0.05, 0.05))
    turn = draws.uniform(-0.4, 0.4)
    inside = Image.new("L", (width, height), 0)
    _outline(ImageDraw.Draw(inside), SHAPES[shape], middle, radius, turn)
    filled = _filled(TEXTURES[texture], (height, width), middle, radius, turn, ink, paper)
    noise = draws.normal(0, 10, (height, width, 3))
    whole = np.where(np.asarray(inside)[..., None] > 0, filled, np.array(ground)) + noise
    return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))


def _colours(draws: np.random.Generator) -> list[NDArray[np.float64]]:
    """Dark, bright and in between, each with a tint."""
    return [np.clip(level + draws.uniform(-35, 35, 3), 0, 255) for level in (40.0, 215.0, 128.0)]


def _outline(draw: ImageDraw.ImageDraw, shape: str, middle: tuple[float, float], radius: float, turn: float) -> None:
    x, y = middle

    def around(count: int, *radii: float) -> list[tuple[float, float]]:
        steps = range(count)
        return [
            (
                x + radii[step % len(radii)] * radius * math.sin(turn + 2 * math.pi * step / count),
                y - radii[step % len(radii)] * radius * math.cos(turn + 2 * math.pi * step / count),
            )
            for step in steps
        ]

    def disc(share: float, at: tuple[float, float] = (0.0, 0.0), fill: int = 255) -> None:
        left, top = x + at[0] * radius, y + at[1] * radius
        draw.ellipse(
            (left - share * radius, top - share * radius, left + share * radius, top + share * radius), fill=fill
        )

    if shape == "disc":
        disc(1)
    elif shape == "ring":
        disc(1)
        disc(0.5, fill=0)
    elif shape == "crescent":
        disc(1)
        disc(0.85, (0.55, -0.1), fill=0)
    elif shape == "square":
        draw.polygon(around(4, 1.2), fill=255)
    elif shape == "triangle":
        draw.polygon(around(3, 1.2), fill=255)
    elif shape == "star":
        draw.polygon(around(10, 1.2, 0.5), fill=255)
    elif shape == "cross":
        for angle in (0.0, math.pi / 2):
            _bar(draw, middle, radius, turn + angle, 0.3)
    else:
        _bar(draw, middle, radius, turn, 0.35)


def _bar(draw: ImageDraw.ImageDraw, middle: tuple[float, float], radius: float, angle: float, width: float) -> None:
    along = np.array([math.cos(angle), math.sin(angle)]) * radius * 1.15
    across = np.array([-math.sin(angle), math.cos(angle)]) * radius * width
    corners = [np.array(middle) + a * along + b * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    draw.polygon([(float(corner[0]), float(corner[1])) for corner in corners], fill=255)


def _filled(
    texture: str,
    size: tuple[int, int],
    middle: tuple[float, float],
    radius: float,
    turn: float,
    ink: NDArray[np.float64],
    paper: NDArray[np.float64],
) -> NDArray[np.float64]:
    rows, columns = np.indices(size).astype(np.float64)
    u = ((columns - middle[0]) * math.cos(turn) + (rows - middle[1]) * math.sin(turn)) / radius
    v = ((rows - middle[1]) * math.cos(turn) - (columns - middle[0]) * math.sin(turn)) / radius
    inked = {
        "plain": np.ones(size, bool),
        "stripes": np.sin(9 * u) > 0,
        "checks": np.sin(7 * u) * np.sin(7 * v) > 0,
        "dots": np.cos(9 * u) + np.cos(9 * v) > 0.9,
        "rays": np.sin(6 * np.arctan2(v, u)) > 0,
    }[texture]
    return np.where(inked[..., None], ink, paper)


def write_folder(drawn: list[Picture], out: Path) -> Path:
    """Class folders, ``CLASS/NAME.jpg``, as ImageNet is unpacked."""
    for picture in drawn:
        path = out / CLASSES[picture.label] / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.encoded)
    return out


def write_tar(drawn: list[Picture], out: Path, *, seed: int = 0) -> Path:
    """Tar shards in a random order, ``KEY.jpg`` beside ``KEY.cls``."""
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(drawn))
    for shard, start in enumerate(range(0, len(order), SHARD)):
        with tarfile.open(out / f"shard-{shard:04}.tar", "w") as archive:
            for place in order[start : start + SHARD]:
                picture = drawn[place]
                classes = _classes_below(drawn)
                label = f"{classes.index(CLASSES[picture.label])}".encode()
                key = picture.name.partition(".")[0]
                for name, content in ((picture.name, picture.encoded), (f"{key}.cls", label)):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return out


def write_parquet(drawn: list[Picture], out: Path, *, seed: int = 1) -> Path:
    """A table of the files' bytes and the numbers of the classes, in a random order."""
    pa: Any = importlib.import_module("pyarrow")
    pq: Any = importlib.import_module("pyarrow.parquet")
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(drawn))
    classes = _classes_below(drawn)
    rows = [drawn[place] for place in order]
    images = [{"bytes": picture.encoded, "path": picture.name} for picture in rows]
    labels = [classes.index(CLASSES[picture.label]) for picture in rows]
    pq.write_table(pa.table({"image": images, "label": labels}), out / "train.parquet")
    return out


def _classes_below(drawn: list[Picture]) -> list[str]:
    """The classes that occur, in the alphabetical order that class folders are numbered in."""
    return sorted({CLASSES[picture.label] for picture in drawn})


def main() -> int:
    """Write all three; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=100, help="pictures of a class")
    parser.add_argument("--classes", type=int, default=len(CLASSES))
    asked = parser.parse_args()
    drawn = list(pictures(classes=asked.classes, each=asked.each))
    write_folder(drawn, asked.out / "folder")
    write_tar(drawn, asked.out / "tar")
    if importlib.util.find_spec("pyarrow") is not None:
        write_parquet(drawn, asked.out / "parquet")
    print(f"{len(drawn):,} pictures of {asked.classes} classes in {asked.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
