"""What a sweep leaves: which points nothing beats, the smallest that loses no more, and its document."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import onnxadmm as oa
from onnxadmm.errors import BudgetError, InputError, OptionError
from onnxadmm.report.codec import decode
from onnxadmm.report.report import Score
from onnxadmm.report.tradeoff import SCHEMA, Faster, Point, read_trade_off, to_text, trade_off
from tests.report.samples import sample_report


def made(lost: list[float], *, loss: bool = False) -> oa.TradeOff:
    """A sweep with points that lose so much, the larger ones first."""

    def point(place: int, less: float) -> Point:
        score = Score("mse", 1 + less / 100, 9) if loss else Score("accuracy", 0.9 - less / 100, 9)
        return Point(
            str(1 - place / 10),
            f"f{place}",
            100 - 10 * place,
            50,
            10,
            (Faster(1, 1.0 + place),),
            score,
            None,
            less,
            True,
            1.0,
        )

    return oa.TradeOff(
        SCHEMA, "m.onnx", "params", point(0, 0.0), tuple(point(n + 1, each) for n, each in enumerate(lost)), "onnxadmm"
    )


def test_the_smallest_that_loses_no_more_is_picked() -> None:
    found = made([0.1, 0.5, 1.2, 0.9, 3.0])
    assert found.pick(1.0).folder == "f4"  # smaller than one that loses more
    assert found.pick(0.2).folder == "f1"
    assert found.pick(9.0, by="latency").folder == "f5"
    with pytest.raises(BudgetError, match=r"--max-drop 0\.05: .* the best of 5 loses 0\.10"):
        found.pick(0.05)
    with pytest.raises(OptionError, match="--by: expected macs, params, size, latency, found 'time'"):
        found.pick(1.0, by="time")  # type: ignore[arg-type]


def test_percent_of_what_the_original_has_are_allowed() -> None:
    found = made([0.85, 0.95])
    original = replace(found.original, heldout=Score("accuracy", 0.9, 9))
    found = replace(found, original=original)
    assert found.pick("1%").folder == "f1"  # 0.9 points
    assert found.pick(1).folder == "f2"
    with pytest.raises(BudgetError, match=r"--max-drop 0\.5%"):
        found.pick("0.5%")


def test_a_metric_of_ones_own_that_falls_is_a_loss() -> None:
    """More is better of every function, whatever its values; less of a loss."""
    report = sample_report()

    def lost(name: str, before: float, after: float) -> float:
        columns = {
            "before": replace(report.before, heldout=Score(name, before, 9)),
            "after": replace(report.after, heldout=Score(name, after, 9)),
        }
        return trade_off("params", [("0.5", "a", replace(report, **columns))], command="").points[0].lost

    assert lost("my_metric", 4.0, 3.0) == pytest.approx(25)
    assert lost("my_metric", -4.0, -5.0) == pytest.approx(25)
    assert lost("mse", 4.0, 5.0) == pytest.approx(25)
    assert lost("f1", 0.9, 0.8) == pytest.approx(10)


def test_points_on_the_front_are_those_that_nothing_beats() -> None:
    report = sample_report()
    found = trade_off("params", [("0.5", "a", report), ("0.4", "b", report)], command="onnxadmm sweep")
    assert [point.on_front for point in found.points] == [True, True]
    assert found.original.parameters == report.before.parameters
    assert found.points[0].faster == {line.batch: line.speedup for line in report.latency}
    assert decode(oa.TradeOff, json.loads(to_text(found))) == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "onnxadmm.sweep/1"}', "\x00"])
def test_a_damaged_sweep_is_refused_in_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(InputError, match=r"sweep\.json: expected the sweep\.json of `onnxadmm sweep`"):
        read_trade_off(tmp_path)
    with pytest.raises(InputError, match=r"give the folder of a sweep"):
        read_trade_off(tmp_path / "nowhere")
