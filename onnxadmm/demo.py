"""The demo: a trained network for handwritten digits and its data, compressed, and held to a bar."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onnxadmm.compress import compress
from onnxadmm.errors import InputError, OnnxAdmmError
from onnxadmm.plan.budget import Budget
from onnxadmm.progress import SILENT, Progress
from onnxadmm.report.report import Column, Report
from onnxadmm.report.words import duration, large, percent, plural
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.result import Compressed
from onnxadmm.train.engine import unavailable_reason

#: Stored pixel values run from 0 to 16; the network reads them on the 0-1 scale.
SCALE: Final = 1 / 16

_BUDGET: Final = Budget(params=0.1)
_RECIPE: Final = Recipe(epochs=20, retrain_epochs=40, batch_size=64)
#: Without training: so many of the images, without their labels.
_SAMPLES: Final = 512
# The bar: what the result must reach on any machine and with any seed.
_FEWER_PARAMETERS: Final = 5.0
_FEWER_MACS: Final = 2.0
_POINTS_LOST: Final = 1.0
_POINTS_LOST_UNTRAINED: Final = 2.0

_HERE: Final = Path(__file__).resolve().parent
# An installed package carries the files inside; in a checkout they stand beside it.
_FOLDERS: Final = (_HERE / "samples" / "digits", _HERE.parent / "samples" / "digits")


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo's files are.

    Attributes:
        model: the network, float32 ``[N, 1, 8, 8]`` to logits ``[N, 10]``.
        training: 1,297 images uint8 ``[8, 8]`` with values 0 to 16, and their labels 0 to 9.
        test: 500 more, which no training has seen.
    """

    model: Path
    training: Path
    test: Path


def demo_files() -> DemoFiles:
    """Return the paths of the demo's files.

    Raises:
        InputError: they are missing from this installation.
    """
    for folder in _FOLDERS:
        files = DemoFiles(folder / "digits.onnx", folder / "digits-train.npz", folder / "digits-test.npz")
        if all(path.is_file() for path in (files.model, files.training, files.test)):
            return files
    raise InputError(
        "the demo",
        expected="its files in samples/digits",
        found="none",
        way_out="install the package again",
    )


def why_untrained() -> str | None:
    """Return why nothing trains here, in a few words; None where it does."""
    return unavailable_reason()


def run_demo(out: str | Path, *, seed: int = 0, force: bool = False, progress: Progress = SILENT) -> Compressed:
    """Compress the demo's network to a tenth of its parameters.

    Args:
        out: folder for the results.
        seed: of every random choice.
        force: replace an older result in ``out``.
        progress: told what happens.

    Raises:
        InputError: the files are missing, the folder cannot be used, or training does not work here.
    """
    files = demo_files()
    return compress(
        files.model,
        data=files.training,
        test=files.test,
        budget=_BUDGET,
        out=out,
        recipe=_RECIPE,
        preprocessing=Preprocessing(scale=SCALE),
        seed=seed,
        force=force,
        progress=progress,
        options={"demo": True},
    )


def run_demo_untrained(
    out: str | Path | None, *, seed: int = 0, force: bool = False, progress: Progress = SILENT
) -> Compressed:
    """Compress the demo's network as far without training and without labels, on any onnxruntime.

    Args:
        out: folder for the results; None writes nothing, and times nothing.
        seed, force, progress: as for ``run_demo``.

    Raises:
        InputError: the files are missing, or the folder cannot be used.
    """
    files = demo_files()
    with np.load(files.training) as archive:
        images = archive["images"][:_SAMPLES]
    return compress(
        files.model,
        calibrate=images,
        test=files.test,
        budget=_BUDGET,
        out=out,
        preprocessing=Preprocessing(scale=SCALE),
        seed=seed,
        bench=out is not None,
        force=force,
        progress=progress,
        options={"demo": True},
    )


@dataclass(frozen=True)
class DemoLine:
    """One line of the demo's table: a way to make the network smaller, and what it led to, in words."""

    way: str
    parameters: str
    macs: str
    accuracy: str
    took: str


def demo_lines(trained: Report | None, untrained: Report) -> tuple[DemoLine, ...]:
    """Put the ways beside each other: the original, with training where it works, without training."""
    ways: list[tuple[str, Column, Report | None]] = [("original", untrained.before, None)]
    ways += [("with training", trained.after, trained)] if trained is not None else []
    ways += [("without training", untrained.after, untrained)]
    return tuple(
        DemoLine(
            way,
            parameters=large(column.parameters),
            macs=large(column.macs or 0),
            accuracy="-" if column.test is None else percent(column.test.value),
            took="" if report is None else duration(sum(stage.seconds for stage in report.stages)),
        )
        for way, column, report in ways
    )


def require_bar(report: Report) -> None:
    """Hold a report of the demo to its bar.

    Raises:
        OnnxAdmmError: fewer than 5x fewer parameters or 2x fewer MACs, more than 1 point of test accuracy lost (2
            without training), or nothing was verified.
    """
    trained = report.trained
    allowed = _POINTS_LOST if trained else _POINTS_LOST_UNTRAINED
    before, after = report.before, report.after
    proven = report.verification is not None and report.verification.passed
    if before.test is None or after.test is None or before.macs is None or after.macs is None or not proven:
        found = "a report without test accuracy, MACs or verification"
    else:
        parameters = before.parameters / max(1, after.parameters)
        macs = before.macs / max(1, after.macs)
        lost = 100 * (before.test.value - after.test.value)
        # The margin is for the rounding of a difference of two shares.
        if parameters >= _FEWER_PARAMETERS and macs >= _FEWER_MACS and lost <= allowed + 1e-9:
            return
        found = f"{parameters:.2f}x fewer parameters, {macs:.2f}x fewer MACs and {lost:.2f} points lost"
    raise OnnxAdmmError(
        "the demo",
        expected=f"at least {_FEWER_PARAMETERS:g}x fewer parameters and {_FEWER_MACS:g}x fewer MACs with at most "
        f"{plural(round(allowed), 'point')} of test accuracy lost {'with' if trained else 'without'} training",
        found=found,
        way_out="run `onnxadmm doctor` to see what works here",
    )
