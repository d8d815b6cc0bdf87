"""One measurement of benchmarks/train_speed.py.

Run: ``python -m benchmarks.train_speed_onnxadmm MODEL ENGINE BATCH WORKERS SECONDS``. Prints one JSON object with the
seconds of each training step, after three that do not count.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import onnx

from onnxadmm.train.data.batches import Batch
from onnxadmm.train.engine import Engine, providers
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.trainer import OrtTrainer

CLASSES, WORDS = 10, 1000


def time_steps(path: str, engine: Engine, batch: int, workers: int, seconds: float) -> dict[str, Any]:
    """Seconds of each step: forward, backward and AdamW, one thread per process."""
    generator = np.random.default_rng(0)
    loss = Loss(Task.CROSS_ENTROPY)
    times: list[float] = []
    with OrtTrainer(onnx.load(path), loss=loss, batch_size=batch, workers=workers, threads=1, engine=engine) as trainer:
        spec = trainer.artifacts.inputs[0]
        words = np.issubdtype(spec.dtype, np.integer)
        x = generator.integers(0, WORDS, spec.shape) if words else generator.standard_normal(spec.shape)
        labels = generator.integers(0, CLASSES, batch)
        given = Batch(inputs={spec.name: x.astype(spec.dtype)}, labels=labels, teacher=None, count=batch)
        while len(times) < 8 or sum(times) < seconds:
            start = time.perf_counter()
            trainer.backward(given)
            trainer.update(1e-3)
            times.append(time.perf_counter() - start)
    return {"times": times[3:], "version": next(iter(providers().values()))}


if __name__ == "__main__":
    path, given, *numbers = sys.argv[1:]
    assert given in ("training", "plain")
    engine: Engine = "training" if given == "training" else "plain"
    print(json.dumps(time_steps(path, engine, int(numbers[0]), int(numbers[1]), float(numbers[2]))))
