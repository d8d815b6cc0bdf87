"""Layers as a page shows them."""

from dataclasses import replace
from typing import Any

from onnxadmm.report.layer_view import layers_for_template
from tests.report.samples import sample_report


def shown(**changes: Any) -> dict[str, Any]:
    """What the template is given of the sample's layers."""
    report = replace(sample_report(), **changes)
    found = layers_for_template(report, {"conv1.weight": "group-0"})
    assert found is not None
    return found


def test_bars_are_relative_to_the_largest_of_their_kind() -> None:
    rows = shown()["rows"]
    bars = {(row["name"], bar["metric"]): (bar["before"], bar["after"]) for row in rows for bar in row["bars"]}
    assert bars["/conv2/Conv", "macs"] == ("1.0000", "0.0450")
    assert bars["/conv1/Conv", "macs"] == ("0.1800", "0.0450")
    assert bars["/fc1/Gemm", "parameters"] == ("1.0000", "0.0076")
    assert bars["/fc2/Gemm", "ms"] == ("0.0000", "0.0037")


def test_cells_have_a_figure_to_sort_by_and_words_to_read() -> None:
    first, *_, last = shown()["rows"]
    assert (first["anchor"], last["anchor"]) == ("group-0", "")
    assert first["cells"][0] == {"value": "288000", "told": "288,000"}
    assert last["cells"][-2] == {"value": "", "told": "\u2013"}


def test_the_sums_are_those_of_the_columns_and_of_the_rest() -> None:
    rest, together = shown()["totals"]
    assert rest["cells"] == ["", "", "", "", "", "", "0.500", "0.125"]
    assert together["cells"] == ["2.293 M", "147,234", "431,080", "4,529", "", "", "7.00", "0.953"]


def test_a_run_without_a_profile_shows_no_time_and_a_report_without_layers_nothing() -> None:
    plain = shown(profile=None)
    assert [metric["id"] for metric in plain["metrics"]] == ["macs", "parameters", "units"]
    assert len(plain["totals"]) == 1
    assert "profile" not in plain["told"]
    assert layers_for_template(replace(sample_report(), layers=()), {}) is None
