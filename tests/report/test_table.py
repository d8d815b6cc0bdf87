"""Console tables: complete, and no wider than 100 columns."""

from dataclasses import replace

from rich.console import Console, RenderableType

from onnxadmm.bench.latency import Latencies, measure_latency
from onnxadmm.report.report import LatencyLine, Spread
from onnxadmm.report.table import comparison_table, latency_table, report_view
from tests.bench.models import dense
from tests.report.samples import sample_in_bytes, sample_report


def rendered(view: RenderableType, *, width: int = 100) -> str:
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_the_view_shows_every_figure_and_the_verification_line() -> None:
    text = rendered(report_view(sample_report()))
    for words in ("1.727 MB", "4,253", "101x fewer", "12.6x fewer", "-0.25 points", "4.47x faster (4.40-4.50)"):
        assert words in text
    assert "Verified: masked original and result agree on 8 inputs: 127.3 dB" in text.replace("\n", " ")
    assert "Budget --params 0.01: 4,311 allowed, 4,253 left, met." in text


def test_the_result_in_bytes_has_a_column_of_its_own_that_still_fits() -> None:
    lines = rendered(report_view(sample_in_bytes())).splitlines()
    assert next(line for line in lines if "before" in line).split() == ["before", "after", "change", "int8"]
    for label, last in (
        *(("File size", "7.700 kB"), ("Nodes", "28"), ("Held-out accuracy", "99.10 %"), ("Test accuracy", "99.14 %")),
        *(("ms at batch 1,", "0.0333"), ("ms at batch 64,", "0.490")),
    ):
        (line,) = (line for line in lines if label in line)
        assert line.rstrip().endswith(last), line
    assert max(map(len, lines)) <= 100
    assert "Note: In bytes 1 operator would cost too much, and kept floats: /fc2/Gemm." in lines


def test_each_figure_stays_on_one_line_of_100_columns() -> None:
    slowest = LatencyLine(128, 16, 5, Spread(1234, 1200, 1300), Spread(12345, 12000, 13001), 0.1, 0.0951, 0.1049)
    lines = rendered(comparison_table(replace(sample_report(), latency=(slowest,)))).splitlines()
    (line,) = (line for line in lines if "ms at batch 128, 16 threads" in line)
    assert "10.0x slower (9.53-10.52)" in line
    assert max(map(len, lines)) <= 100


def test_a_slower_result_is_called_slower() -> None:
    slow = replace(sample_report().latency[0], speedup=0.5, speedup_low=0.4, speedup_high=0.8)
    assert "2.00x slower (1.25-2.50)" in rendered(comparison_table(replace(sample_report(), latency=(slow,))))


def test_brackets_in_warnings_are_no_markup() -> None:
    assert "Warning: a [/b] c" in rendered(report_view(replace(sample_report(), warnings=("a [/b] c",))))


def test_latencies_of_three_models_stand_in_order() -> None:
    models = [dense(8), dense(16, inner=4), dense(8)]
    measured = measure_latency([models[0], models[2]], names=["first", "second"], large=2, seconds=0.05)
    text = rendered(latency_table(Latencies(measured.results, ("batch 3 was not timed: because",))))
    assert text.index("first") < text.index("second")
    assert text.count("first") == 2
    assert "Warning: batch 3 was not timed: because" in text
