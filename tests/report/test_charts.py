"""What charts are given: every figure at its place, nothing that JSON has no word for, and a sentence beside."""

import json
import math
from dataclasses import replace

from onnxadmm.progress import Iteration, Residuals
from onnxadmm.report.charts import chart_of_connections, charts_of_run, thinned_evenly
from onnxadmm.report.layers import ConnectionsLine
from onnxadmm.report.report import Report
from tests.report.samples import iterations, sample_report


def charts(report: Report) -> dict[str, tuple[tuple[float | None, ...], ...]]:
    """The values of every series by the chart's name."""
    return {chart.id: tuple(series.values for series in chart.series) for chart in charts_of_run(report)}


def test_every_figure_of_the_history_stands_at_its_epoch() -> None:
    heldout, loss, cost, residuals = charts_of_run(sample_report())
    assert heldout.x == (0.25, 0.5, 1.5)
    assert heldout.boundary == 0.5
    assert heldout.series[0].values == (98.1, 98.2, None)
    assert loss.series[0].values == (0.3, 0.15, 0.05)
    assert [series.values for series in cost.series] == [(380_000, 190_000, None), (400_000, 200_000, None)]
    assert residuals.series[0].values == (12.5, 6.25, None)
    assert (cost.title, residuals.kind) == ("Parameters against the budget", "log")


def test_a_calibrated_run_has_no_chart_and_one_that_left_connections_alone_no_line_of_them() -> None:
    assert charts_of_run(replace(sample_report(), history=())) == ()
    alone = tuple(replace(row, connections=None) for row in iterations())
    assert len(charts(replace(sample_report(), history=alone))["residuals"]) == 2
    retraining = replace(sample_report(), history=iterations()[2:])
    assert list(charts(retraining)) == ["loss"]


def test_what_is_no_number_and_what_a_logarithm_has_no_place_for_is_left_out() -> None:
    row = Iteration("prune", 1, 0.5, math.nan, math.inf, 0.1, Residuals(0.0, 1e-3, 1.0), None, 1.0, 2.0, 3)
    drawn = charts(replace(sample_report(), history=(row, replace(row, iteration=2, loss=1.0))))
    assert drawn["loss"] == ((None, 1.0),)
    assert "heldout" not in drawn
    assert drawn["residuals"] == ((0.001, 0.001),)
    documents = [chart.document() for chart in charts_of_run(replace(sample_report(), history=(row,)))]
    json.dumps(documents, allow_nan=False)


def test_a_loss_is_called_by_its_name_and_not_in_percent() -> None:
    before = sample_report().after
    assert before.heldout is not None
    report = replace(sample_report(), after=replace(before, heldout=replace(before.heldout, metric="mse")))
    chart = charts_of_run(report)[0]
    assert (chart.title, chart.unit, chart.series[0].values[0]) == ("Held-out mse", "", 0.981)


def test_a_chart_says_in_a_sentence_what_it_shows() -> None:
    assert charts_of_run(sample_report())[1].described == (
        "Training loss. loss: from 0.3 to 0.05, between 0.05 and 0.3."
    )
    line = ConnectionsLine((0.0, 1.0, 2.0), (1, 20), (30, 4), ())
    assert chart_of_connections(line).described == (
        "Connections by their size in the original. stayed: 21 in all. pruned: 34 in all."
    )


def test_bars_stand_on_top_of_each_other_and_tell_their_own_numbers() -> None:
    chart = chart_of_connections(ConnectionsLine((0.0, 1.0, 2.0), (1, 20), (30, 4), ()))
    assert chart.x == (0.5, 1.5)
    assert [(series.values, series.told) for series in chart.series] == [((31, 24), (1, 20)), ((30, 4), None)]


def test_of_many_iterations_some_are_drawn_and_the_last_is_one_of_them() -> None:
    rows = tuple(replace(iterations()[0], iteration=number) for number in range(1, 5001))
    some = thinned_evenly(rows, 200)
    assert len(some) == 200
    assert (some[0], some[-1]) == (rows[0], rows[-1])
    assert thinned_evenly(rows[:7], 200) == rows[:7]
    assert len(charts_of_run(replace(sample_report(), history=rows))[0].x) == 1000
