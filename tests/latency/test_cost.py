"""Latency as a cost: told from measured plans, kept for the next run, met by every way to a plan."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import BudgetError, ModelFileError, OptionError
from onnxadmm.graph.model import load
from onnxadmm.latency.cost import PLANS, latency_for
from onnxadmm.latency.plans import draw
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits
from onnxadmm.surgery import find_groups
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import find_units
from tests.bench.models import dense
from tests.conftest import Command
from tests.latency.clock import Clock, milliseconds
from tests.latency.clock import clock as clock
from tests.shared import needs_training

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

LIMITS = Limits(round_to=1)


def test_plans_that_were_not_measured_are_told_of(digits: DemoFiles, clock: Clock) -> None:
    model = load(digits.model)
    units = find_groups(model)
    cost = latency_for(model, units, Budget(latency=0.5), LIMITS, threads=1)
    assert cost.whole_ms == pytest.approx(milliseconds(model), rel=0.03)
    assert cost.total(np.ones(units.count, np.bool_)) == pytest.approx(cost.whole_ms, rel=0.05)
    groups = [LIMITS.of(group) for group in units.groups]
    for keep in draw(groups, units.count, count=10, seed=99):
        assert cost.total(keep) == pytest.approx(cost.measure(keep), rel=0.12)
        assert (cost.marginal(keep) >= 0).all()
    assert cost.table.error < 0.06
    assert "The latency of 48 plans was measured" in cost.describe()


def test_a_correction_holds_from_then_on(digits: DemoFiles, clock: Clock) -> None:
    model = load(digits.model)
    units = find_groups(model)
    cost = latency_for(model, units, Budget(latency=0.5), LIMITS, threads=1)
    whole = np.ones(units.count, np.bool_)
    total, slopes = cost.total(whole), cost.marginal(whole)
    cost.correct(1.5)
    assert cost.total(whole) == pytest.approx(1.5 * total)
    np.testing.assert_allclose(cost.marginal(whole), 1.5 * slopes)


def test_what_was_measured_is_kept_for_an_equal_run_alone(digits: DemoFiles, clock: Clock) -> None:
    model = load(digits.model)
    units = find_groups(model)

    def timed(budget: Budget, limits: Limits = LIMITS, threads: int = 1) -> int:
        before = clock.timed
        latency_for(model, units, budget, limits, threads=threads)
        return clock.timed - before

    assert timed(Budget(latency=0.5)) > PLANS
    assert timed(Budget(latency=0.3)) == 1  # the whole network alone: it says what a share is of
    assert timed(Budget(latency=0.5), threads=2) > PLANS
    assert timed(Budget(latency=0.5, latency_batch=4)) > PLANS
    assert timed(Budget(latency=0.5), limits=Limits(round_to=4)) > PLANS


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"steps": [1], "terms": [[-1.0]]}', "\x00"])
def test_a_damaged_table_is_measured_anew(
    text: str, digits: DemoFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = load(digits.model)
    units = find_groups(model)
    first = latency_for(model, units, Budget(latency=0.5), LIMITS, threads=1)
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["plans"] == PLANS
    path.write_text(text)
    again = latency_for(model, units, Budget(latency=0.5), LIMITS, threads=1)
    assert not again.stored
    assert again.table.terms.shape == first.table.terms.shape


def test_a_cache_that_cannot_be_written_ends_nothing(
    digits: DemoFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model = load(digits.model)
    assert not latency_for(model, find_groups(model), Budget(latency=0.5), LIMITS, threads=1).stored


@pytest.mark.parametrize("amount", [0.7, 0.4, "30%"])
def test_a_plan_without_training_meets_it(amount: float | str, digits: DemoFiles, clock: Clock) -> None:
    plan = oa.rank(digits.model, oa.Budget(latency=amount), limits=LIMITS)
    share = float(str(amount).removesuffix("%")) / (100 if str(amount).endswith("%") else 1)
    ratio = milliseconds(oa.shrink(digits.model, plan)) / milliseconds(load(digits.model))
    assert 0.9 * share <= ratio <= 1.02 * share  # measured to a percent, and so is the whole


def test_a_time_is_met_as_well(digits: DemoFiles, clock: Clock) -> None:
    most = 0.5 * milliseconds(load(digits.model))
    plan = oa.rank(digits.model, oa.Budget(latency=f"{most:.6f}ms"), limits=LIMITS)
    assert 0.9 * most <= milliseconds(oa.shrink(digits.model, plan)) <= 1.02 * most


def test_several_budgets_are_met_together(digits: DemoFiles, clock: Clock) -> None:
    plan = oa.rank(digits.model, oa.Budget(latency=0.6, params=0.3), limits=LIMITS)
    small, whole = oa.shrink(digits.model, plan), load(digits.model)
    assert milliseconds(small) <= 0.612 * milliseconds(whole)
    left, all_of_them = (Cost(find_units(model), "params").dense() for model in (small, whole))
    assert left <= 0.3 * all_of_them


def test_a_latency_out_of_reach_is_refused(digits: DemoFiles, clock: Clock) -> None:
    with pytest.raises(
        BudgetError, match=r"--latency 2us: expected at least [0-9.]+ ms.* found 0\.002 ms of"
    ) as caught:
        oa.rank(digits.model, oa.Budget(latency="2us"), limits=LIMITS)
    (least,) = re.findall(r"at least ([0-9.]+) ms", str(caught.value))
    assert oa.rank(digits.model, oa.Budget(latency=f"{1.01 * float(least)}ms"), limits=LIMITS).removed_count


def test_what_may_take_as_long_as_before_stays_whole(digits: DemoFiles, clock: Clock) -> None:
    assert oa.rank(digits.model, oa.Budget(latency=1), limits=LIMITS).removed_count == 0
    assert oa.rank(digits.model, oa.Budget(latency="1s"), limits=LIMITS).removed_count == 0


def test_a_batch_that_the_model_does_not_have_is_refused(clock: Clock) -> None:
    with pytest.raises(ModelFileError, match="--latency-batch: expected 2, the batch size that the model fixes"):
        oa.rank(dense(32, batch=2), oa.Budget(latency=0.5, latency_batch=4))
    assert oa.rank(dense(32, batch=2), oa.Budget(latency=0.85), limits=LIMITS).removed_count > 0


@pytest.mark.parametrize(("amount", "found"), [("3", "'3'"), ("3MB", "'3MB'"), (0, "0")])
def test_an_amount_that_is_no_latency_is_refused(amount: object, found: str) -> None:
    with pytest.raises(OptionError, match=f"--latency: expected a share .* or a number such as 3ms, found {found}"):
        oa.Budget(latency=amount)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_calibration_meets_it(digits: DemoFiles, few_digits: Samples, clock: Clock) -> None:
    result = oa.compress(
        digits.model,
        calibrate=few_digits[0][:256],
        budget=oa.Budget(latency=0.5),
        limits=LIMITS,
        bench=False,
        bench_threads=1,
    )
    (line,) = result.budgets
    assert line.kind == "latency"
    assert line.met
    assert 0.9 * line.limit <= line.reached
    assert milliseconds(result.model) <= 0.51 * milliseconds(load(digits.model))
    assert any("plans was measured" in note for note in result.simplified)
    assert "measure latency" in {stage.name for stage in result.stages}
    assert "--latency 0.5" in result.command


@pytest.mark.slow
@needs_training
def test_a_training_meets_it(digits: DemoFiles, few_digits: Samples, clock: Clock) -> None:
    result = oa.compress(
        digits.model,
        data=few_digits,
        budget=oa.Budget(latency=0.4),
        recipe=oa.Recipe(epochs=1, retrain_epochs=0, batch_size=32),
        limits=LIMITS,
        bench=False,
        bench_threads=1,
    )
    (line,) = result.budgets
    assert line.met
    assert 0.9 * line.limit <= line.reached
    assert milliseconds(result.model) <= 0.41 * milliseconds(load(digits.model))


@pytest.mark.slow
def test_the_fastest_that_keeps_a_promise_is_searched_for(digits: DemoFiles, few_digits: Samples, clock: Clock) -> None:
    result = oa.compress(
        digits.model,
        calibrate=few_digits,
        calibration=oa.CalibrationOptions(effort="quick", max_drop=2.0, by="latency"),
        limits=LIMITS,
        bench=False,
        bench_threads=1,
    )
    assert milliseconds(result.model) < 0.8 * milliseconds(load(digits.model))
    assert any("% of the milliseconds" in note for note in result.simplified)


@pytest.mark.slow
def test_the_command_line_measures_for_real(command: Command, tmp_path: Path) -> None:
    # Nearly all of its time goes with its units: a busy machine adds to every network, and less than that.
    model = tmp_path / "wide.onnx"
    oa.save(dense(64, inner=1536, layers=3), model)
    ran = command("plan", model, "--speedup", "2", "-o", tmp_path / "plan.json")
    assert ran.status == 0, ran.stderr
    assert oa.Plan.read(tmp_path / "plan.json").removed_count > 0
    for words, found in ((("--latency", "0.4"), "--latency 0.4 as well"), ((), "0.5")):
        ran = command("plan", model, "--speedup", "0.5" if not words else "2", *words, "-o", tmp_path / "p.json")
        assert ran.status == 2
        assert f"--speedup: expected at least 1, and no --latency beside it, found {found}" in ran.stderr
