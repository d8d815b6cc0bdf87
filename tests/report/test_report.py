"""Reports: there and back again, and what is refused on reading."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from onnxadmm.bench.latency import measure_latency
from onnxadmm.errors import InputError
from onnxadmm.report.codec import dumps
from onnxadmm.report.report import (
    SCHEMA,
    BudgetLine,
    Column,
    GroupLine,
    Report,
    from_document,
    latency_lines,
    read_report,
    to_document,
)
from tests.bench.models import dense
from tests.report.samples import RESULT, sample_report, values_of


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(values_of(Report))
def test_any_report_survives_json(report: Report) -> None:
    text = dumps(to_document(report))
    assert from_document(json.loads(text), source="test") == report
    assert dumps(to_document(from_document(json.loads(text), source="test"))) == text


def test_the_order_of_options_does_not_change_a_byte() -> None:
    report = sample_report()
    turned = replace(report, options=dict(reversed(list(report.options.items()))))
    assert list(turned.options) != list(report.options)
    assert dumps(to_document(turned)) == dumps(to_document(report))


def test_the_schema_stands_first() -> None:
    assert next(iter(to_document(sample_report()).items())) == ("schema", "onnxadmm.report/1")


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"schema": "onnxadmm.report/2"}, "found schema 'onnxadmm.report/2'"),
        ({}, "found a document without a schema"),
        ([], "found a document without a schema"),
        ("text", "found a document without a schema"),
        ({"schema": 1}, "found schema 1"),
    ],
    ids=["newer", "empty", "list", "text", "number"],
)
def test_another_schema_is_refused_with_both_names(document: object, found: str) -> None:
    with pytest.raises(InputError) as caught:
        from_document(document, source="report.json")
    assert SCHEMA in str(caught.value)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("before", "parameters"), "many", 'before.parameters: expected a whole number, found "many"'),
        (("latency", 0, "batch"), None, "latency[0].batch: expected a whole number, found null"),
        (("before", "test", "metric"), "beauty", "before.test.metric: expected one of 'accuracy',"),
        (("surprise",), 1, "surprise: expected no field of this name, found 1"),
        (
            ("groups", 0, "units_after"),
            21,
            "groups[0]: expected values that fit together, found group conv1.weight: 21",
        ),
    ],
    ids=["text for number", "null", "unknown metric", "unknown field", "more units than before"],
)
def test_a_field_that_does_not_fit_is_refused_by_name(path: tuple[Any, ...], value: object, sentence: str) -> None:
    document: Any = json.loads(dumps(to_document(sample_report())))
    target = document
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    with pytest.raises(InputError) as caught:
        from_document(document, source="report.json")
    assert f"report.json, {sentence}" in str(caught.value)


def test_a_missing_field_is_refused_by_name() -> None:
    document = to_document(sample_report())
    del document["after"]["file_bytes"]
    with pytest.raises(InputError, match=r"after\.file_bytes: expected this field, found nothing"):
        from_document(document, source="report.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"])
def test_a_file_that_is_not_json_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="expected JSON"):
        read_report(path)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_report(tmp_path / "report.json")


def test_nonsense_is_refused_when_made() -> None:
    with pytest.raises(ValueError, match="negative"):
        Column(RESULT, -1, 1, 1, 1, None, None, None)
    with pytest.raises(ValueError, match="2 non-zero of 1 parameters"):
        Column(RESULT, 1, 1, 2, 1, None, None, None)
    with pytest.raises(ValueError, match="locked, yet 4 units became 3"):
        GroupLine("g", (), 4, 3, "a reason")


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
