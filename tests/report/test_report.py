"""Reports in memory: what is refused when they are made, and what measurements become."""

import pytest

from onnxadmm.bench.latency import measure_latency
from onnxadmm.report.layers import ConnectionsLine
from onnxadmm.report.report import BudgetLine, Column, GroupLine, latency_lines
from tests.bench.models import dense
from tests.report.samples import RESULT


def test_nonsense_is_refused_when_made() -> None:
    with pytest.raises(ValueError, match="negative"):
        Column(RESULT, -1, 1, 1, 1, None, None, None)
    with pytest.raises(ValueError, match="2 non-zero of 1 parameters"):
        Column(RESULT, 1, 1, 2, 1, None, None, None)
    with pytest.raises(ValueError, match="locked, yet 4 units became 3"):
        GroupLine("g", (), 4, 3, "a reason")
    with pytest.raises(ValueError, match="3 edges of 1 and 2 bins"):
        ConnectionsLine((0.0, 1.0, 2.0), (1,), (1, 2), ())


def test_a_budget_is_met_at_its_limit_and_not_above() -> None:
    assert BudgetLine("macs", "10", 10, 20, 10).met
    assert not BudgetLine("macs", "10", 10, 20, 10.5).met


def test_measured_latencies_become_lines() -> None:
    large, small = dense(16, inner=64), dense(16)
    measured = measure_latency([large, small], names=["a", "b"], large=4, seconds=0.05)
    lines = latency_lines(measured)
    assert [line.batch for line in lines] == [1, 4]
    for line, result in zip(lines, measured.results, strict=True):
        assert line.before.median_ms == result.timings[0].median_ms
        assert line.after.median_ms == result.timings[1].median_ms
        assert (line.speedup_low, line.speedup, line.speedup_high) == (
            result.speedups[0].low,
            result.speedups[0].ratio,
            result.speedups[0].high,
        )


def test_a_third_model_is_compared_with_the_second() -> None:
    measured = measure_latency(
        [dense(16, inner=64), dense(16), dense(16)], names=["a", "b", "c"], large=4, seconds=0.05, against=(0, 1)
    )
    for line, result in zip(latency_lines(measured, before=1, after=2), measured.results, strict=True):
        assert line.before.median_ms == result.timings[1].median_ms
        assert line.after.median_ms == result.timings[2].median_ms
        assert line.speedup == result.speedups[1].ratio
        assert 0.2 < line.speedup < 5, "equal models"
    assert measured.results[0].speedups[0].ratio > 0
