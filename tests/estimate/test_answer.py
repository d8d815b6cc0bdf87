"""What follows of a run from the paces that were measured: hours that fit, samples that stand for others, machines."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import BudgetError, OptionError
from onnxadmm.estimate import measure
from onnxadmm.estimate.answer import answer
from onnxadmm.estimate.measure import seen
from onnxadmm.estimate.question import Question
from onnxadmm.progress import SILENT
from onnxadmm.report.report import StageTime
from onnxadmm.run.forecast import Paces
from onnxadmm.run.rehearsal import Details, Pace
from onnxadmm.runtime.cores import usable_cores
from tests.estimate.calls import called
from tests.shared import needs_training

pytestmark = [needs_training, pytest.mark.usefixtures("quick_latency")]

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
RECIPE = oa.Recipe(epochs=3, retrain_epochs=4, batch_size=64)

DETAILS = Details(peak_bytes=10**9, gradient=0.5, workers=usable_cores(), most_workers=16, weights_bytes=4 * 10**6)
#: Ten steps in each second of both.
PACES = Paces(
    9,
    Pace(3.0, 1.0, 1.0, 10, 100, waiting=0.1, backward=0.5, evaluation=1.0, details=DETAILS),
    Pace(2.0, 0.5, 1.0, 10, 100, waiting=0.0, backward=0.4, evaluation=1.0, details=DETAILS),
    (StageTime("measure", 4.0),),
)


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch, digits: DemoFiles, few_digits: Digits, tmp_path: Path) -> Any:
    """Estimates in this process, of trainings with known paces; what comes before is as fast as it is."""

    def measured(*given: Any, **named: Any) -> Paces:
        training, _, units, *_ = given
        return Paces(
            training.steps_per_epoch, PACES.prune, PACES.retrain, PACES.others, keep=np.ones(units.count, np.bool_)
        )

    monkeypatch.setattr(measure, "measured_paces", measured)
    monkeypatch.setattr(measure, "speed_up", lambda *given: 1.5)

    def asked(recipe: oa.Recipe, **given: Any) -> oa.Estimate:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        given_to = called(digits.model, data=few_digits, budget={"params": 0.5}, recipe=recipe, bench=False)
        with seen(given_to, Question(**given), folder=folder, tell=SILENT, started=1.0) as found:
            return answer(found, Question(**given))

    return asked


def test_the_epochs_are_the_most_that_fit_the_hours(paced: Any) -> None:
    """Every schedule of the family is tried by hand: both trainings shortened alike."""
    whole = oa.Recipe(epochs=20, retrain_epochs=40, batch_size=64)
    hours = 0.1
    found = paced(whole, hours=hours)
    others = sum(stage.seconds for stage in found.stages if not stage.epochs)

    def seconds(epochs: int, again: int) -> float:
        looks = epochs * max(1, min(8, round(40 / epochs)))
        return 3 + 9 * epochs + looks + 2 + 4.5 * again + again + 1

    def family(part: int) -> tuple[int, int]:
        return max(1, round(20 * part / 40)), max(1, round(40 * part / 40))

    fits = [family(part) for part in range(1, 41) if others + seconds(*family(part)) <= 0.9 * 3600 * hours - 0.5]
    assert (found.epochs, found.retrain_epochs) in (max(fits), max(fits, key=lambda pair: pair[1]))
    assert found.seconds <= 0.9 * 3600 * hours
    assert f"--epochs {found.epochs} --retrain-epochs {found.retrain_epochs}" in found.command


def test_hours_never_lengthen_a_run(paced: Any) -> None:
    found = paced(oa.Recipe(epochs=2, retrain_epochs=3, batch_size=64), hours=1000)
    assert (found.epochs, found.retrain_epochs) == (2, 3)


def test_the_hours_that_are_named_are_enough(paced: Any) -> None:
    recipe = oa.Recipe(epochs=20, retrain_epochs=40, batch_size=64)
    with pytest.raises(BudgetError) as caught:
        paced(recipe, hours=0.001)
    assert caught.value.exit_status == 3
    named = re.search(r"allow ([\d.e-]+) hours", str(caught.value))
    assert named is not None
    least = paced(recipe, hours=float(named[1]) + 0.001)
    assert (least.epochs, least.retrain_epochs) == (1, 1)


def test_samples_stand_for_as_many_as_are_asked_for(paced: Any) -> None:
    rates = {"learning_rate": 1e-3, "retrain_learning_rate": 5e-3}  # which nobody need try
    found = paced(oa.Recipe(epochs=2, retrain_epochs=3, batch_size=64, **rates), samples=640_000)
    assert found.samples == 640_000
    assert found.batches == (640_000 - 5000) // 64
    stages = {stage.name: stage for stage in found.stages}
    assert stages["prune"].seconds == pytest.approx(3 + 2 * found.batches + 2 * 8)
    assert stages["retrain"].seconds == pytest.approx(2 + 3 * found.batches * 0.5 + 4)
    # The numbers that are not here would be in memory: 8 x 8 of four bytes each.
    assert stages["prune"].memory_bytes > 10**9 + 600_000 * 256


def test_fewer_samples_than_there_are_stand_for_nothing(paced: Any) -> None:
    with pytest.raises(OptionError, match="--samples: expected at least the 640 that there are, found 100"):
        paced(RECIPE, samples=100)


def test_other_machines_are_told_to_be_extrapolated(paced: Any) -> None:
    here, there = paced(RECIPE), paced(RECIPE, cores=64, machines=4, price_per_core_hour=1.0)
    assert there.workers == (4, 4)  # as many as a machine's share of the batch has parts
    assert "--cluster auto" in there.command
    assert "--cluster" not in here.command
    assert (there.cores, there.machines) == (64, 4)
    took = {stage.name: stage.seconds for stage in here.stages}
    for stage in there.stages:
        if stage.epochs:
            assert stage.seconds < took[stage.name]
    assert any(sentence.startswith("Extrapolated from ") for sentence in there.notes)
    assert any("60 of 64 cores have no part of a batch" in sentence for sentence in there.notes)
    assert any("12.00 MB over the link" in sentence for sentence in there.notes)  # 2 x 3 x 2 MB
    assert there.traffic_bytes > 0
    assert there.rates["speed-up of all cores"] == 1.5
