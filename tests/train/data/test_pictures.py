"""Pictures of every kind become the pixels that a network reads."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from onnxadmm.train.data.pictures import BOX_DRAWS, DamagedError, Framing, decode, look, random_box

SMOOTH = Image.fromarray(
    np.stack([np.add.outer(np.arange(96) * k, np.arange(144)) % 256 for k in (0, 1, 0)], axis=2).astype(np.uint8) // 2
).resize((72, 48))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes, framing: Framing, box: NDArray[Any] | None = None) -> NDArray[np.int64]:
    return decode(content, framing, name="one", box=box).astype(np.int64)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_as_their_exif_says(turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(SMOOTH, kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    assert np.array_equal(pixels(content, Framing()), expected)
    seen = look(content, Framing(size=(16, 16)), name="one")
    assert (seen.height, seen.width) == expected.shape[:2]
    assert any("EXIF" in words for words in seen.odd) == (turn > 1)
    # Read at a fraction of its size, a turned picture is cut as it is when it stands upright.
    upright = encoded(Image.fromarray(expected.astype(np.uint8)))
    small = Framing(size=(8, 8), resize=10)
    assert np.abs(pixels(content, small) - pixels(upright, small)).mean() < 4


@pytest.mark.parametrize(
    ("mode", "kind", "said"),
    [
        ("L", "PNG", "grey and were given three"),
        ("LA", "PNG", "alpha"),
        ("RGBA", "PNG", "alpha"),
        ("P", "PNG", None),
        ("1", "PNG", "grey"),
        ("CMYK", "JPEG", "CMYK"),
        ("RGB", "JPEG", None),
    ],
)
def test_every_mode_becomes_three_channels_as_pillow_converts_it(mode: str, kind: str, said: str | None) -> None:
    content = encoded(SMOOTH.convert(mode), kind)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.array_equal(pixels(content, Framing()), expected)
    odd = look(content, Framing(), name="one").odd
    assert bool(odd) == (said is not None)
    assert said is None or said in odd[0]


def test_large_jpegs_are_read_at_a_fraction_and_look_the_same() -> None:
    smooth = SMOOTH.resize((1440, 960), Image.Resampling.BICUBIC)
    for framing in (Framing(size=(96, 96), resize=112), Framing(True, (96, 96), 112)):
        quick, exact = (pixels(encoded(smooth, kind), framing) for kind in ("JPEG", "PNG"))
        assert np.abs(quick - exact).mean() < 1.5


def test_shorter_side_and_middle_are_those_of_pillow() -> None:
    whole = SMOOTH.resize((48, 32), Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[4:28, 12:36].astype(int)
    assert np.array_equal(pixels(encoded(SMOOTH), Framing(size=(24, 24), resize=32)), expected)


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 1000))
def test_random_parts_lie_within_the_picture(height: int, width: int, seed: int) -> None:
    left, top, wide, high = random_box(height, width, np.random.default_rng(seed).random(BOX_DRAWS))
    assert left >= 0
    assert top >= 0
    assert 1 <= wide <= width - left
    assert 1 <= high <= height - top


def test_random_parts_cover_8_to_100_percent_of_a_picture_and_every_place_in_it() -> None:
    boxes = np.array([random_box(300, 400, draws) for draws in np.random.default_rng(0).random((4000, *BOX_DRAWS))])
    shares = boxes[:, 2] * boxes[:, 3] / (300 * 400)
    ratios = boxes[:, 2] / boxes[:, 3]
    assert 0.075 < shares.min() < 0.1
    assert 0.9 < shares.max() <= 1
    assert 0.73 < ratios.min() < 0.77
    assert 1.3 < ratios.max() < 1.37
    middle = (boxes[:, :2] + boxes[:, 2:] / 2).mean(axis=0)
    np.testing.assert_allclose(middle, [200, 150], rtol=0.02)


def test_a_random_part_is_that_part_resized() -> None:
    draws = np.random.default_rng(3).random(BOX_DRAWS)
    left, top, wide, high = random_box(48, 72, draws)
    expected = SMOOTH.crop((left, top, left + wide, top + high)).resize((24, 24), Image.Resampling.BILINEAR)
    found = pixels(encoded(SMOOTH), Framing(size=(24, 24)), draws)
    assert np.abs(found - np.asarray(expected).astype(int)).max() <= 2
    jpeg = pixels(encoded(SMOOTH.resize((576, 384)), "JPEG", quality=95), Framing(size=(24, 24)), draws)
    assert np.abs(jpeg - found).mean() < 8


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no picture"),
        (b"GIF89a nothing", "decoded|no picture"),
        (b"<html>not found</html>", "no picture"),
        (encoded(SMOOTH, "JPEG")[:-30], "ends before"),
        (encoded(SMOOTH)[:-30], "cannot be decoded"),
        (encoded(SMOOTH).replace(b"IDAT", b"IDAQ"), "decoded|no picture"),
        (encoded(SMOOTH, "BMP")[:-3000], "cannot be decoded"),
        (encoded(SMOOTH, "WEBP")[:-50], "decoded|no picture"),
    ],
)
def test_damage_is_seen_before_anything_is_decoded(content: bytes, why: str) -> None:
    with pytest.raises(DamagedError, match=why):
        look(content, Framing(), name="one")


def test_a_thumbnail_does_not_hide_that_a_picture_is_cut_short() -> None:
    exif = Image.Exif()
    thumbnail = encoded(SMOOTH.resize((16, 16)), "JPEG")
    exif[0x010E] = "a thumbnail"
    content = encoded(SMOOTH, "JPEG", exif=exif, comment=thumbnail)
    look(content, Framing(), name="one")
    with pytest.raises(DamagedError, match="ends before"):
        look(content[:-40], Framing(), name="one")
