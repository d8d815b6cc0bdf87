"""Before a long run: one step in a process of its own, and its gradients held against differences.

A crash, NaN or a wrong gradient becomes one sentence here instead of a lost night.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxadmm import errors
from onnxadmm.child_process import command, ending, environment
from onnxadmm.errors import NotTrainableError, OnnxAdmmError, OutputError
from onnxadmm.graph.model import Model
from onnxadmm.operators.outside import sources
from onnxadmm.runtime.custom_ops import paths_in_use
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.engine import EngineChoice, choose_engine
from onnxadmm.train.losses import Loss
from onnxadmm.train.preflight.gradient_check import Check
from onnxadmm.train.prepare.nodes import as_proto

#: What the child process runs.
PROGRAM = ("-m", "onnxadmm.train.preflight.child")


@dataclass(frozen=True)
class Preflight:
    """What was found out about a model that trains.

    Attributes:
        loss: of the step that was taken.
        checks: comparisons of gradients with differences, all weights together first; none is wrong.
        frozen: weights no gradient reaches.
        untrainable: weights that keep their values, with the operator that is in their way.
        seconds: how long it took.
    """

    loss: float
    checks: tuple[Check, ...]
    frozen: tuple[str, ...]
    untrainable: Mapping[str, str]
    seconds: float


def preflight(
    model: onnx.ModelProto | Model,
    *,
    loss: Loss,
    batch: Batch,
    samples: int = 4,
    checked: int = 6,
    threads: int = 1,
    trainable: Sequence[str] | None = None,
    output: str | None = None,
    freeze_untrainable: bool = False,
    engine: EngineChoice = "auto",
    timeout: float = 120.0,
) -> Preflight:
    """Build the training graph, take one step on a few samples and check some gradients, all in a child process.

    Args:
        model: left as it is.
        batch: real samples; their labels are used where they have some, random ones where they have none, and a
            random teacher always, since the model itself would be one without gradient.
        samples: how many of them are used, at most.
        checked: weights looked at one by one, besides all together.
        trainable, output, freeze_untrainable, engine, threads: as for ``OrtTrainer``.
        timeout: seconds after which the child is given up.

    Raises:
        NotTrainableError: the model cannot be trained, or the step crashed, gave NaN, took too long or had a wrong
            gradient; the sentence names the weight or the operator, as far as it can be known.
        OptionError, TrainingUnavailableError: as ``OrtTrainer`` does.
    """
    chosen = choose_engine(engine)
    start = time.monotonic()
    count = min(samples, batch.count)
    arrays = {name: np.ascontiguousarray(array[:count]) for name, array in batch.inputs.items()}
    order: dict[str, Any] = {
        "probe": False,
        "task": loss.task.value,
        "distillation": loss.distillation,
        "temperature": loss.temperature,
        "gaps": loss.gaps,
        "weighted": loss.weighted,
        "batch_size": count,
        "input_shapes": {name: array.shape[1:] for name, array in arrays.items()},
        "trainable": None if trainable is None else list(trainable),
        "output": output,
        "freeze_untrainable": freeze_untrainable,
        "engine": chosen,
        "checked": checked,
        "threads": threads,
        "rules": [asdict(source) for source in sources()],
        "custom_ops": paths_in_use(),
    }
    if batch.labels is not None:
        arrays["labels/"] = np.ascontiguousarray(batch.labels[:count])
    if batch.weights is not None:
        arrays["weights/"] = np.ascontiguousarray(batch.weights[:count])
    with tempfile.TemporaryDirectory(prefix="onnxadmm-preflight-") as name:
        folder = Path(name)
        try:
            onnx.save(as_proto(model), folder / "model.onnx")
            np.savez(folder / "batch.npz", **arrays)  # type: ignore[arg-type]  # its stubs see a flag in the names
        except OSError as error:
            raise OutputError(
                name,
                expected="room for a copy of the model",
                found=error.strerror or str(error),
                way_out="make room, or point TMPDIR to a larger disk",
            ) from error
        status = _run(folder, order, timeout)
        result_file = folder / "result.json"
        if status != 0 or not result_file.exists():
            raise _crash(folder, order, status, timeout)
        result = json.loads(result_file.read_text())
    if "error" in result:
        raise _error(result)
    return Preflight(
        loss=result["loss"],
        checks=tuple(Check(**check) for check in result["checks"]),
        frozen=tuple(result["frozen"]),
        untrainable=result["untrainable"],
        seconds=time.monotonic() - start,
    )


def _run(folder: Path, order: Mapping[str, Any], timeout: float) -> int | None:
    """Exit status of the child, negative for a signal, None when it was given up."""
    (folder / "order.json").write_text(json.dumps(order))
    with (folder / "stderr.txt").open("wb") as stderr:
        words = [*command(*PROGRAM), str(folder)]
        try:
            done = subprocess.run(words, stdout=stderr, stderr=stderr, env=environment(), timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return None
    return done.returncode


def _crash(folder: Path, order: Mapping[str, Any], status: int | None, timeout: float) -> NotTrainableError:
    stage = _read(folder / "stage.txt") or "starting"
    end = f"no end within {timeout:g} s" if status is None else ending(status, _read(folder / "stderr.txt"))
    culprit = ""
    if status is not None and stage != "running the original":
        (folder / "stage.txt").unlink(missing_ok=True)
        if _run(folder, {**order, "probe": True}, timeout) != 0:
            culprit = _read(folder / "stage.txt")
    return NotTrainableError(
        culprit or "model",
        expected="one training step in a process of its own",
        found=f"{end} while {stage}" + ("" if culprit else ", which no single operator caused alone"),
        way_out="replace the operator" if culprit else "simplify the model, or leave weights out of training",
    )


def _read(path: Path) -> str:
    return path.read_text(errors="replace").strip() if path.exists() else ""


def _error(result: Mapping[str, str]) -> OnnxAdmmError:
    kind = getattr(errors, result["error"])
    parts = {key: result[key] for key in ("expected", "found", "way_out")}
    error = kind(result["thing"], **parts)
    assert isinstance(error, OnnxAdmmError)
    return error
