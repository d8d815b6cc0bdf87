"""Small models and data for the pages of the cookbook: ``python samples/cookbook_models.py TASK``, into this folder.

Nothing is downloaded. The hidden layers are drawn at random and wider than they need be; the last one is fitted by
least squares, which makes a network that does its task in a second and without any framework. ``classification`` uses
the trained network of samples/digits.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from PIL import Image

Array = NDArray[Any]

DIGITS: Final = Path(__file__).resolve().parent / "digits"
TRAINING, TEST = 1200, 300
#: What comes before the text of every graph.
_HEAD: Final = '<ir_version: 8, opset_import: ["" : 17]>\n'

_SEGMENTATION: Final = """network (float[N, 1, 16, 16] image) => (float[N, 3, 16, 16] classes)
    <float[24, 1, 3, 3] w1, float[24] b1, float[48, 24, 3, 3] w2, float[48] b2, float[3, 48, 1, 1] w3, float[3] b3>
    { a = Conv <pads = [1, 1, 1, 1]> (image, w1, b1) r = Relu (a)
      c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2) hidden = Relu (c) classes = Conv (hidden, w3, b3) }"""
_DETECTION: Final = """network (float[N, 1, 16, 16] image) => (float[N, 16] scores, float[N, 16, 4] boxes)
    <float[24, 1, 3, 3] w1, float[24] b1, float[64, 24, 3, 3] w2, float[64] b2, float[1, 64, 1, 1] w3, float[1] b3,
     float[4, 64, 1, 1] w4, float[4] b4, float[16, 4] centres, int64[2] cells = {0, -1},
     int64[3] columns = {0, 4, -1}>
    { a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (image, w1, b1) r = Relu (a)
      c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w2, b2) hidden = Relu (c)
      s = Conv (hidden, w3, b3) scores = Reshape (s, cells)
      d = Conv (hidden, w4, b4) e = Reshape (d, columns) f = Transpose <perm = [0, 2, 1]> (e)
      boxes = Add (f, centres) }"""
_TIME_SERIES: Final = """network (float[N, 2, 48] past) => (float[N, 6] next)
    <float[32, 2, 7] w1, float[32] b1, float[48, 32, 5] w2, float[48] b2, float[576, 6] w3, float[6] b3>
    { a = Conv <pads = [3, 3], strides = [2]> (past, w1, b1) r = Relu (a)
      c = Conv <pads = [2, 2], strides = [2]> (r, w2, b2) t = Relu (c)
      hidden = Flatten (t) next = Gemm (hidden, w3, b3) }"""
_TEXT: Final = """network (int64[N, 20] tokens) => (float[N, 2] sentiment)
    <float[100, 48] w1, float[48, 128] w2, float[128] b2, float[128, 2] w3, float[2] b3>
    { e = Gather (w1, tokens) m = MatMul (e, w2) n = Add (m, b2) r = Relu (n)
      hidden = ReduceMean <axes = [1], keepdims = 0> (r) sentiment = Gemm (hidden, w3, b3) }"""
_REGRESSION: Final = """network (float[N, 8] features) => (float[N, 1] price)
    <float[8, 96] w1, float[96] b1, float[96, 128] w2, float[128] b2, float[128, 1] w3, float[1] b3>
    { a = Gemm (features, w1, b1) r = Relu (a) c = Gemm (r, w2, b2) hidden = Relu (c) price = Gemm (hidden, w3, b3) }"""
_FROM_NOWHERE: Final = """network (float[N, 3, H, W] pixel_values) => (float[N, 10] probabilities)
    <float[32, 3, 3, 3] w1, float[32] b1, float[32, 1, 3, 3] w2, float[32] b2, float[32, 32, 1, 1] w4, float[32] b4,
     float[64, 32, 3, 3] w5, float[64] b5, float[64, 10] w3, float[10] b3>
    { a = Conv <pads = [1, 1, 1, 1]> (pixel_values, w1, b1) r = Relu (a)
      d = Conv <group = 32, pads = [1, 1, 1, 1]> (r, w2, b2) s = Relu (d) p = Conv (s, w4, b4) q = Add (p, r)
      c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (q, w5, b5) t = Relu (c)
      g = GlobalAveragePool (t) hidden = Flatten (g) logits = Gemm (hidden, w3, b3)
      probabilities = Softmax <axis = 1> (logits) }"""


def drawn(text: str, generator: np.random.Generator) -> onnx.ModelProto:
    """Return a graph with its weights drawn at random, so that activations keep their size from layer to layer."""
    model = parser.parse_model(_HEAD + text)
    for value in [value for value in model.graph.value_info if value.name[0] in "wb" and value.name[1:].isdigit()]:
        shape = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        # Convolutions are [cout, cin, k, ...], matrices [cin, cout].
        inputs = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        spread = 0.1 if len(shape) == 1 else np.sqrt(2 / inputs)
        array = (spread * generator.standard_normal(shape)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        model.graph.value_info.remove(value)
    return model


def fit(
    model: onnx.ModelProto,
    inputs: dict[str, Array],
    weight: str,
    targets: Array,
    *,
    size: float = 1.0,
    counted: Array | None = None,
) -> None:
    """Fit a last layer and its bias, in place.

    Args:
        model: with a value ``hidden`` that the layer reads: ``[n, c]``, or ``[n, c, h, w]`` for a convolution of 1 x 1.
        inputs: what to run.
        weight: name of the layer's weight; its bias has the same number.
        targets: float ``[n, cout]`` or ``[n, cout, h, w]``.
        size: factor on weight and bias, for outputs that are scores.
        counted: bool ``[n, h, w]``, the positions that are looked at; None: all.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.helper.make_empty_tensor_value_info("hidden"))
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    (hidden,) = session.run(None, inputs)
    rows = np.moveaxis(hidden, 1, -1).reshape(-1, hidden.shape[1])  # [n, c, h, w] -> [n h w, c]
    wanted = np.moveaxis(targets, 1, -1).reshape(-1, targets.shape[1])
    if counted is not None:
        rows, wanted = rows[counted.reshape(-1)], wanted[counted.reshape(-1)]
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1).astype(np.float64)
    gram = rows.T @ rows
    solved = size * np.linalg.solve(gram + 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram)), rows.T @ wanted)
    for tensor in model.graph.initializer:
        if tensor.name in (weight, f"b{weight[1:]}"):
            shape = tuple(tensor.dims)
            array = solved[-1] if len(shape) == 1 else solved[:-1] if len(shape) == 2 else solved[:-1].T.reshape(shape)
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))


def pictures(count: int, generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Draw a disk or a square on noise.

    Returns:
        images float32 ``[count, 1, 16, 16]``; the class of each pixel int64 ``[count, 16, 16]``: 0 nothing, 1 a disk,
        2 a square; and float32 ``[count, 4]``: row, column, height and width of the thing, in pixels.
    """
    kind, radius = generator.integers(1, 3, count), generator.integers(3, 5, count)
    row, column = generator.uniform(4, 12, count), generator.uniform(4, 12, count)
    y, x = (axis[None] for axis in np.mgrid[:16, :16])
    dy, dx = np.abs(y - row[:, None, None]), np.abs(x - column[:, None, None])
    size = radius[:, None, None]
    inside = np.where(kind[:, None, None] == 1, dy**2 + dx**2 <= size**2, np.maximum(dy, dx) <= size)
    classes = np.where(inside, kind[:, None, None], 0)
    light = np.choose(classes, [0.0, 0.7, 1.2]) + 0.1 * generator.standard_normal((count, 16, 16))
    boxes = np.stack([row, column, 2 * radius, 2 * radius], axis=1)
    return light[:, None].astype(np.float32), classes.astype(np.int64), boxes.astype(np.float32)


def classification(folder: Path) -> None:
    """Digits as pictures in folders of classes, and the network that knows them."""
    shutil.copy(DIGITS / "digits.onnx", folder / "model.onnx")
    for part, name, count in (("train", "digits-train.npz", 500), ("test", "digits-test.npz", 200)):
        with np.load(DIGITS / name) as archive:
            images, labels = archive["images"][:count], archive["labels"][:count]
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / "images" / part / str(label) / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype(np.uint8)).save(path)


def segmentation(folder: Path) -> None:
    """Pixels of disks, of squares and of nothing; those at the border have no label."""
    generator = np.random.default_rng(0)
    images, classes, _ = pictures(TRAINING + TEST, generator)
    model = drawn(_SEGMENTATION, generator)
    one_hot = np.moveaxis(np.eye(3)[classes[:TRAINING]], -1, 1)
    fit(model, {"image": images[:TRAINING]}, "w3", one_hot, size=10)
    labels = classes.copy()
    labels[:, [0, -1]] = labels[:, :, [0, -1]] = 255
    write(folder, model, {"image": images, "labels": labels})


def detection(folder: Path) -> None:
    """Where the thing is: for each of 4 x 4 cells a score, and a box."""
    generator = np.random.default_rng(0)
    images, _, boxes = pictures(TRAINING + TEST, generator)
    cell = (boxes[:, 0] // 4).astype(int) * 4 + (boxes[:, 1] // 4).astype(int)
    model = drawn(_DETECTION, generator)
    hit = np.eye(16)[cell[:TRAINING]].reshape(-1, 1, 4, 4)
    row, column = np.divmod(np.arange(16), 4)
    centres = np.stack([4 * row + 2, 4 * column + 2, 0 * row, 0 * row], axis=1).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(centres, "centres"))
    model.graph.value_info.remove(next(value for value in model.graph.value_info if value.name == "centres"))
    fit(model, {"image": images[:TRAINING]}, "w3", hit, size=10)
    # What a cell says of a thing that is elsewhere counts for nothing.
    apart = (boxes[:TRAINING, None] - centres).transpose(0, 2, 1).reshape(-1, 4, 4, 4)
    fit(model, {"image": images[:TRAINING]}, "w4", apart, counted=hit[:, 0] > 0)
    write(folder, model, {"image": images}, {"image": images, "cells": cell, "boxes": boxes})


def time_series(folder: Path) -> None:
    """Two waves with noise: 48 steps of the past, 6 of what comes."""
    generator = np.random.default_rng(0)
    count = TRAINING + TEST
    speed, phase = generator.uniform(0.2, 0.6, (count, 2, 1)), generator.uniform(0, 6.3, (count, 2, 1))
    steps = np.sin(speed * np.arange(54) + phase)
    steps[:, 0] += 0.5 * steps[:, 1]
    past = (steps[:, :, :48] + 0.05 * generator.standard_normal((count, 2, 48))).astype(np.float32)
    following = steps[:, 0, 48:].astype(np.float32)
    model = drawn(_TIME_SERIES, generator)
    fit(model, {"past": past[:TRAINING]}, "w3", following[:TRAINING])
    write(folder, model, {"past": past, "targets": following})


def text(folder: Path) -> None:
    """Sentences of 20 of 100 words, of which some are kind and some are not."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 100, (TRAINING + TEST, 20))
    kindness = generator.standard_normal(100) * (generator.random(100) < 0.3)
    labels = (kindness[tokens].sum(1) > 0).astype(np.int64)
    model = drawn(_TEXT, generator)
    fit(model, {"tokens": tokens[:TRAINING]}, "w3", np.eye(2)[labels[:TRAINING]], size=10)
    write(folder, model, {"tokens": tokens, "labels": labels})


def regression(folder: Path) -> None:
    """A price that depends on eight features, not in a straight line."""
    generator = np.random.default_rng(0)
    features = generator.standard_normal((TRAINING + TEST, 8)).astype(np.float32)
    price = 100 + 20 * features[:, 0] + 10 * np.abs(features[:, 1]) + 5 * features[:, 2] * features[:, 3]
    model = drawn(_REGRESSION, generator)
    fit(model, {"features": features[:TRAINING]}, "w3", price[:TRAINING, None])
    write(folder, model, {"features": features, "targets": price[:, None].astype(np.float32)})


def from_nowhere(folder: Path) -> None:
    """A file of which nothing is known: sizes left free, a depthwise convolution, a residual; and pictures for it."""
    generator = np.random.default_rng(0)
    kind = generator.integers(0, 10, TRAINING)
    # Stripes in five directions, in two colours.
    turned, y, x = np.pi / 5 * (kind % 5), *np.mgrid[:32, :32]
    along = np.cos(turned)[:, None, None] * y + np.sin(turned)[:, None, None] * x
    stripes = np.sin(0.8 * along + generator.uniform(0, 6.3, (TRAINING, 1, 1)))
    colour = np.array([[1.0, 0.5, 0.1], [0.1, 0.5, 1.0]])[kind // 5]
    pictures = 0.5 + 0.5 * colour[:, :, None, None] * stripes[:, None]
    pictures = (pictures + 0.1 * generator.standard_normal(pictures.shape)).astype(np.float32)
    model = drawn(_FROM_NOWHERE, generator)
    fit(model, {"pixel_values": pictures}, "w3", np.eye(10)[kind], size=10)
    onnx.save(model, folder / "model.onnx")
    np.save(folder / "samples.npy", pictures[:512])


def write(folder: Path, model: onnx.ModelProto, data: dict[str, Array], test: dict[str, Array] | None = None) -> None:
    """Write ``model.onnx``, ``train.npz`` and ``test.npz``; the last samples are the test data."""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "train.npz", **{name: array[:TRAINING] for name, array in data.items()})  # type: ignore[arg-type]
    last = {name: array[TRAINING:] for name, array in (test or data).items()}
    np.savez(folder / "test.npz", **last)  # type: ignore[arg-type]  # numpy takes arrays by name


TASKS: Final[dict[str, Callable[[Path], None]]] = {
    make.__name__: make
    for make in (classification, segmentation, detection, time_series, text, regression, from_nowhere)
}


def main() -> int:
    """Write the files of the task that is named."""
    if sys.argv[1:] not in [[task] for task in TASKS]:
        print(f"expected one of {', '.join(TASKS)}", file=sys.stderr)
        return 2
    TASKS[sys.argv[1]](Path())
    return 0


if __name__ == "__main__":
    sys.exit(main())
