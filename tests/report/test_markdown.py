"""report.md: complete, well-formed, and safe against names that look like markup."""

import re
from dataclasses import replace

import pytest

from onnxadmm.report.markdown import to_markdown
from onnxadmm.report.report import GroupLine, Report
from tests.report.samples import sample_in_bytes, sample_report


def cells(line: str) -> list[str]:
    """Cells of a table row, split as Markdown does: at bars that are not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize("report", [sample_report(), sample_in_bytes()], ids=["floats", "bytes"])
def test_every_table_has_as_many_cells_in_each_row_as_in_its_header(report: Report) -> None:
    width = 0
    for line in to_markdown(report).splitlines():
        if line.startswith("|"):
            width = width or len(cells(line))
            assert len(cells(line)) == width, line
        else:
            width = 0


def test_the_comparison_stands_first_with_its_figures() -> None:
    text = to_markdown(sample_report())
    assert "| Parameters | 431,080 | 4,253 | 101x fewer |" in text
    assert "| Test accuracy | 99.42 % | 99.17 % | -0.25 points |" in text
    assert "agree on 8 inputs: 127.3 dB (at least 80 dB asked)" in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_the_result_in_bytes_is_the_last_column() -> None:
    text = to_markdown(sample_in_bytes())
    assert "|  | before | after | change | int8 |" in text
    assert "| Test accuracy | 99.42 % | 99.17 % | -0.25 points | 99.14 % |" in text
    assert "- In bytes 1 operator would cost too much, and kept floats: /fc2/Gemm." in text


def test_locked_groups_stand_with_their_reason() -> None:
    assert "reaches graph output logits" in to_markdown(sample_report())


def test_a_name_full_of_markup_stays_one_cell() -> None:
    report = replace(sample_report(), groups=(GroupLine("a|b*c_d`e\n<f>", (), 4, 2, None),))
    (row,) = (line for line in to_markdown(report).splitlines() if line.startswith(r"| a\|b"))
    assert cells(row)[0] == r"a\|b\*c\_d\`e \<f\>"
    assert cells(row)[2:] == ["4", "2"]


def test_parts_without_content_leave_no_heading() -> None:
    empty = replace(
        sample_report(), budgets=(), latency=(), groups=(), simplified=(), warnings=(), history=(), stages=()
    )
    headings = [line for line in to_markdown(empty).splitlines() if line.startswith("#")]
    assert headings == ["# lenet5\\_mnist.onnx, compressed", "## Run"]


def test_warnings_are_a_list() -> None:
    report = replace(sample_report(), warnings=("Smaller but not faster: so it is.",))
    assert "\n## Warnings\n\n- Smaller but not faster: so it is.\n" in to_markdown(report)
