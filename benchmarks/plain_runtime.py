"""Accuracy and latency of two models in any environment that has numpy and onnxruntime, and nothing of this project.

Run: ``python benchmarks/plain_runtime.py BEFORE AFTER IMAGES LABELS MEAN STD``, the data as gzipped IDX files. Prints
one JSON object. The models take turns while they are timed, so that a busy neighbour slows both.
"""

import gzip
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

BATCHES = (1, 64)
ROUNDS = 200


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4).astype(np.int64)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def open_session(path: Path) -> Any:
    """Open a model on the CPU with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def accuracy(session: Any, images: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Share of right classes."""
    name = session.get_inputs()[0].name
    right = [
        session.run(None, {name: images[start : start + 500]})[0].argmax(1) == labels[start : start + 500]
        for start in range(0, len(images), 500)
    ]
    return float(np.concatenate(right).mean())


def milliseconds(sessions: list[Any], images: NDArray[np.float32]) -> tuple[list[float], float]:
    """Return the median time of each model, and the median over rounds of first / second."""
    feeds = [{session.get_inputs()[0].name: images} for session in sessions]
    times = np.zeros((ROUNDS, len(sessions)))
    for number in range(-20, ROUNDS):
        order = range(len(sessions)) if number % 2 else reversed(range(len(sessions)))
        for index in order:
            start = time.perf_counter()
            sessions[index].run(None, feeds[index])
            if number >= 0:
                times[number, index] = 1000 * (time.perf_counter() - start)
    return [float(value) for value in np.median(times, axis=0)], float(np.median(times[:, 0] / times[:, 1]))


def main() -> None:
    """Measure and print."""
    before, after, images_path, labels_path = (Path(word) for word in sys.argv[1:5])
    mean, std = (float(word) for word in sys.argv[5:7])
    images = ((read_idx(images_path)[:, None] / np.float32(255) - mean) / std).astype(np.float32)
    labels = read_idx(labels_path)
    sessions = [open_session(before), open_session(after)]
    scores = [accuracy(session, images, labels) for session in sessions]
    latency = []
    for batch in BATCHES:
        medians, speedup = milliseconds(sessions, images[:batch])
        latency.append({"batch": batch, "before_ms": medians[0], "after_ms": medians[1], "speedup": speedup})
    document = {
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "accuracy_before": scores[0],
        "accuracy_after": scores[1],
        "latency": latency,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
