"""Reports as files: there and back again, and what is refused on reading."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from onnxadmm.errors import InputError
from onnxadmm.report.codec import dumps, encode
from onnxadmm.report.reading import SCHEMA, from_document, read_history, read_report, to_document
from onnxadmm.report.report import Report
from onnxadmm.report.writer import HistoryWriter, write_report
from tests.report.samples import iterations, sample_in_bytes, sample_report, values_of


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(values_of(Report))
def test_any_report_survives_json(report: Report) -> None:
    text = dumps(to_document(report))
    read = from_document(json.loads(text), source="test", history=report.history)
    assert read == report
    assert dumps(to_document(read)) == text


def test_the_order_of_options_does_not_change_a_byte() -> None:
    report = sample_report()
    turned = replace(report, options=dict(reversed(list(report.options.items()))))
    assert list(turned.options) != list(report.options)
    assert dumps(to_document(turned)) == dumps(to_document(report))


def test_the_schema_stands_first() -> None:
    assert next(iter(to_document(sample_report()).items())) == ("schema", "onnxadmm.report/2")


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"schema": "onnxadmm.report/3"}, "found schema 'onnxadmm.report/3'"),
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
        (("budgets", 0, "kind"), "beauty", "budgets[0].kind: expected one of 'macs',"),
        (("surprise",), 1, "surprise: expected no field of this name, found 1"),
        (("history",), [], "history: expected no field of this name, found one"),
        (
            ("groups", 0, "units_after"),
            21,
            "groups[0]: expected values that fit together, found group conv1.weight: 21",
        ),
    ],
    ids=["text for number", "null", "unknown kind", "unknown field", "history of its own", "more units than before"],
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


def first_schema(report: Report) -> dict[str, Any]:
    """A report of the first schema: its history inside, nothing of layers, of tensors, of what feeds what."""
    document = json.loads(dumps(encode(report)))
    for name in ("inputs", "outputs", "layers", "profile", "connections", "variants", "forecast"):
        del document[name]
    for group in document["groups"]:
        del group["feeds"]
    return {"schema": "onnxadmm.report/1", **document}


def test_a_report_of_the_first_schema_is_read_and_what_came_later_is_empty(tmp_path: Path) -> None:
    report = sample_report()
    path = tmp_path / "report.json"
    path.write_text(json.dumps(first_schema(report)))
    read = read_report(path)
    groups = tuple(replace(group, feeds=()) for group in report.groups)
    bare = replace(report, groups=groups, inputs=(), outputs=(), layers=(), profile=None, connections=None)
    assert read == bare
    assert read.history == report.history != ()


@pytest.mark.parametrize("name", ["variants", "forecast"])
def test_a_report_from_before_there_were_variants_or_forecasts_is_read(name: str) -> None:
    document = json.loads(dumps(to_document(sample_report())))
    del document[name]
    assert from_document(document, source="report.json") == replace(sample_report(), history=())


def test_the_result_in_bytes_stands_in_the_document_and_comes_back() -> None:
    document = json.loads(dumps(to_document(sample_in_bytes())))
    (variant,) = document["variants"]
    assert variant["name"] == "int8"
    assert variant["figures"]["file_bytes"] == 7_700
    assert variant["floats"] == ["/fc2/Gemm"]
    assert [line["speedup"] for line in variant["latency"]] == [0.75, 2.0]
    assert from_document(document, source="report.json", history=iterations()) == sample_in_bytes()


def test_a_damaged_report_of_the_first_schema_is_refused_by_its_field() -> None:
    document = first_schema(sample_report())
    document["groups"] = ["conv1"]
    with pytest.raises(InputError, match=r"groups\[0\]: expected an object"):
        from_document(document, source="report.json")


def test_iterations_are_read_from_the_file_beside_and_stand_nowhere_else(tmp_path: Path) -> None:
    write_report(sample_report(), tmp_path)
    assert read_report(tmp_path).history == ()
    with HistoryWriter(tmp_path / "history.jsonl") as history:
        for row in iterations():
            history.append(row)
    assert read_report(tmp_path) == sample_report()
    assert "learning_rate" in (tmp_path / "history.jsonl").read_text()
    assert "learning_rate" not in (tmp_path / "report.json").read_text()


@pytest.mark.parametrize("line", [b'{"stage": "pru', b'{"stage": "prune"}', b"\xff", b"[" * 100_000])
def test_a_history_that_is_none_is_one_sentence_with_its_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as history:
        history.append(iterations()[0])
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(InputError, match=r"history\.jsonl, line [12]: expected an iteration"):
        read_history(path)
