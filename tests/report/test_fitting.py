"""Tables at every width of a terminal: nothing is cut."""

from dataclasses import replace

import pytest

from onnxadmm.report.fitting import Fitting, Rows
from onnxadmm.report.inspection import InspectedGroup, Inspection, inspection_view
from onnxadmm.report.report import LatencyLine, Spread
from onnxadmm.report.table import report_view
from tests.report.samples import sample_in_bytes, sample_report
from tests.report.test_table import rendered

WIDTHS = (40, 60, 80, 120)
LONG = "a_rather_long_name_of_a_weight_without_any_space_in_it"
TABLE = Rows(("model", "batch", "median ms"), [(LONG, "64", "0.123"), ("b", "1", "0.045")])


def whole(text: str) -> str:
    """Rendered text without ends of lines and the spaces around them, so that folded names are in one piece."""
    return "".join(line.strip() for line in text.splitlines())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_no_cell_is_cut(width: int) -> None:
    text = rendered(Fitting(TABLE), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for cell in ("model", "0.123", "0.045", "64") if width >= 60 else ("0.123", "0.045", "64"):
        assert cell in text
    assert "median ms" in text


def test_what_does_not_fit_is_a_list() -> None:
    assert [line.rstrip() for line in rendered(Fitting(TABLE), width=36).splitlines()[1:]] == [
        LONG[:36],
        LONG[36:],
        "  batch: 64",
        "  median ms: 0.123",
        "b",
        "  batch: 1",
        "  median ms: 0.045",
        "",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_label_and_figure_of_a_report_is_whole(width: int) -> None:
    slowest = LatencyLine(128, 16, 5, Spread(1234, 1200, 1300), Spread(12345, 12000, 13001), 0.1, 0.0951, 0.1049)
    text = rendered(report_view(replace(sample_report(), latency=(slowest,))), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for label in ("Non-zero parameters", "MACs per sample", "Held-out accuracy", "ms at batch 128, 16 threads"):
        assert label in text
    for figure in ("1.727 MB", "431,080", "101x fewer", "99.42 %", "10.0x slower (9.53-10.52)", "1234", "12345"):
        assert figure in text
    assert ("1234 (1200-1300)" in text) == (width == 120)


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_in_bytes_are_whole_at_any_width(width: int) -> None:
    text = rendered(report_view(sample_in_bytes()), width=width)
    assert max(map(len, text.splitlines())) <= width
    for figure in ("7.700 kB", "99.14 %", "0.0333", "1.727 MB", "101x fewer"):
        assert figure in text
    if width == 40:
        assert "  int8: 7.700 kB" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_every_name_of_an_inspection_is_whole(width: int) -> None:
    groups = (
        InspectedGroup(LONG, 64, 4, ("/a/Conv", "/b/Conv"), 0.25, 0.5, None),
        InspectedGroup("fc", 10, 1, (), None, None, "reaches graph output logits"),
    )
    text = rendered(inspection_view(Inspection("m.onnx", 1000, 2000, groups)), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "64 in 4 equal blocks" in text
    assert "25.00 %" in text
    assert "/b/Conv" in whole(text)
    assert "reaches graph output logits" in " ".join(text.split())
