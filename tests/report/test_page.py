"""Pages: whole, safe against what names hold, small, the same each time; and what a real browser makes of them."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from onnxadmm.report import page as page_module
from onnxadmm.report.inspection import InspectedGroup, Inspection
from onnxadmm.report.layers import LayerLine, TensorLine, WeightLine
from onnxadmm.report.page import page_of_inspection, page_of_report, page_of_sweep
from onnxadmm.report.report import GroupLine, Report
from onnxadmm.report.rows import comparison_rows
from onnxadmm.report.tradeoff import TradeOff, trade_off
from tests.browser import Browser, needs_browser
from tests.report.samples import iterations, sample_in_bytes, sample_report, values_of

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\u202e\u200b{{ 7*7 }}"
#: Elements without an end.
_VOID = {"meta", "input", "br", "img", "link", "wbr"}


class Document(HTMLParser):
    """The elements of a page, which must be nested as they should, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text += data

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]

    def links(self) -> list[str]:
        return [str(attributes["href"]) for tag, attributes in self.elements if tag == "a"]


def hostile_report() -> Report:
    """The sample, every name in it one that a browser would act upon."""
    report, name = sample_in_bytes(), HOSTILE
    model = replace(report.before.model, name=name)
    return replace(
        report,
        command=name,
        options={**report.options, name: name, "model": name, "custom_ops": name},
        before=replace(report.before, model=model),
        after=replace(report.after, model=model),
        groups=(GroupLine(name, (name,), 8, 4, None, (name,)), GroupLine(f"{name}2", (name,), 8, 8, name)),
        simplified=(name,),
        warnings=(name,),
        inputs=(TensorLine(name, name, (name, 3)),),
        outputs=(TensorLine(name, name, (name, 3)),),
        layers=(LayerLine(name, name, name, 8, 4, 64, 32, 64, 32, 1.0, 0.5),),
        connections=None
        if report.connections is None
        else replace(report.connections, weights=(WeightLine(name, 1, 2),)),
        variants=tuple(
            replace(line, figures=replace(line.figures, model=model), floats=(name,), told=(name,))
            for line in report.variants
        ),
    )


def hostile_inspection() -> Inspection:
    groups = (
        InspectedGroup(HOSTILE, 8, 1, (HOSTILE,), 0.5, 0.5, None, (HOSTILE,)),
        InspectedGroup(f"{HOSTILE}2", 8, 1, (HOSTILE,), None, None, HOSTILE),
    )
    return Inspection(HOSTILE, 1, 1, groups, (HOSTILE,), HOSTILE)


def large_report() -> Report:
    """A report of the size of ResNet-50's, normalisations kept, trained for long."""
    names = [f"/layer{stage}/layer{stage}.{block}/conv{number}" for stage in (1, 2, 3, 4) for block in range(6)
             for number in (1, 2, 3)][:54]  # fmt: skip
    layers = tuple(
        LayerLine(f"{name}/{operator}", operator, f"{name}.weight", 2048, 1024, 10**6, 10**5, 10**8, 10**7, 1.25, 0.5)
        for name in names
        for operator in ("Conv", "BatchNormalization")
    )
    groups = tuple(
        GroupLine(f"{name}.weight", tuple(layer.name for layer in layers[:12]), 2048, 1024, None,
                  tuple(f"{other}.weight" for other in names[number + 1 : number + 4]))
        for number, name in enumerate(names)
    )  # fmt: skip
    history = tuple(replace(iterations()[0], iteration=number, epoch=number / 8) for number in range(1, 2001))
    return replace(sample_report(), layers=layers, groups=groups, history=history)


# -- what stands in the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("report", [sample_report(), sample_in_bytes()], ids=["floats", "bytes"])
def test_every_figure_of_the_comparison_stands_on_the_page(report: Report) -> None:
    document = Document(page_of_report(report))
    for row in comparison_rows(report):
        for words in (row.label, row.before, row.after, row.change, *row.others):
            assert words in document.text
    assert "agree on 8 inputs: 127.3 dB (at least 80 dB asked)" in document.text
    assert "Budget --params 0.01: 4,311 allowed, 4,253 left, met." in document.text
    assert "locked: reaches graph output logits" in document.text
    assert "session = onnxruntime.InferenceSession('model.onnx')" in document.text


def test_the_result_in_bytes_is_named_wherever_the_result_is() -> None:
    document = Document(page_of_report(sample_in_bytes()))
    assert "File in int8" in document.text
    assert "1.727 MB \N{RIGHTWARDS ARROW} 7.700 kB" in document.text
    assert "model.int8.onnx runs likewise: the same network in int8." in document.text
    assert "onnxadmm bench MODEL OUT/model.onnx OUT/model.int8.onnx" in document.text
    assert "runs likewise" not in Document(page_of_report(sample_report())).text


@pytest.mark.parametrize("page", [page_of_report(sample_report()), page_of_inspection(hostile_inspection())])
def test_links_lead_to_what_is_there_and_no_name_is_given_twice(page: str) -> None:
    document = Document(page)
    ids = document.ids()
    assert len(ids) == len(set(ids))
    assert len(document.links()) > 1
    assert {unquote(link.removeprefix("#")) for link in document.links()} <= set(ids)


def hostile_sweep() -> TradeOff:
    """A sweep of a model whose name a browser would act upon."""
    done = [("0.5", "params-0.5", hostile_report()), ("0.2", "params-0.2", hostile_report())]
    return trade_off("params", done, command=hostile_report().command)


HOSTILE_PAGES = [
    page_of_report(hostile_report()),
    page_of_inspection(hostile_inspection()),
    page_of_sweep(hostile_sweep()),
]


@pytest.mark.parametrize("page", HOSTILE_PAGES)
def test_names_that_a_browser_would_act_upon_are_text(page: str) -> None:
    document = Document(page)
    assert {tag for tag, _ in document.elements} & {"img", "iframe", "object", "base", "form", "link"} == set()
    assert not any(name.startswith("on") for _, attributes in document.elements for name in attributes)
    assert "alert(1)" in document.text
    assert "alert" not in "".join(document.scripts)
    assert r"\x1b[31m\u202e\u200b{{ 7*7 }}" in document.text
    assert not {"\x1b", "\u202e", "\u200b"} & set(page)


@pytest.mark.parametrize("page", HOSTILE_PAGES)
def test_a_page_allows_its_own_scripts_and_nothing_else(page: str) -> None:
    document = Document(page)
    (policy,) = (str(each["content"]) for tag, each in document.elements if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    run = [script for script in document.scripts if not script.startswith("[")]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in run]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert not [each for _, each in document.elements if {"src", "srcset", "action"} & set(each)]
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page)
    assert "@import" not in page


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.reuse, Phase.generate),  # making a failing report smaller takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(values_of(Report))
def test_any_report_is_a_page_whose_data_are_json(report: Report) -> None:
    document = Document(page_of_report(report))
    data = [script for script in document.scripts if script.startswith("[")]
    assert len(data) == (len(document.scripts) > 1)
    for text in data:
        json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert len(set(document.ids())) == len(document.ids())


def test_what_draws_charts_is_what_its_authors_publish() -> None:
    folder = Path(page_module.__file__).parent / "web"
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("uplot.js", "uplot.css")}
    assert digests == {  # dist/uPlot.iife.min.js and dist/uPlot.min.css of the package uplot 1.6.32
        "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    }


def test_equal_reports_give_equal_pages() -> None:
    report = sample_report()
    turned = replace(report, options=dict(reversed(list(report.options.items()))))
    assert page_of_report(report) == page_of_report(turned)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "Pruned while training"),
        ({"effort": "normal", "retrain_epochs": None}, "Calibrated, then trained"),
        ({"effort": "normal", "retrain_epochs": 0}, "Calibrated, without training"),
    ],
)
def test_a_page_begins_with_how_the_units_were_chosen(options: dict[str, Any], told: str) -> None:
    assert f"{told} on " in Document(page_of_report(replace(sample_report(), options=options))).text


def test_what_a_report_does_not_have_leaves_no_section() -> None:
    bare = replace(
        sample_report(), budgets=(), latency=(), groups=(), simplified=(), warnings=(), history=(), stages=(),
        layers=(), profile=None, connections=None, inputs=(), outputs=(), verification=None,
    )  # fmt: skip
    document = Document(page_of_report(bare))
    assert document.links()[1:] == ["#summary", "#course", "#use", "#again"]
    assert "there is no curve to show" in document.text
    assert "Not verified." in document.text
    assert len(document.scripts) == 1, "what draws charts is left out where there are none"


def test_a_latency_that_is_too_noisy_claims_nothing() -> None:
    report = sample_report()
    noisy = replace(report.latency[0], speedup=1.1, speedup_low=0.8, speedup_high=1.4)
    text = Document(page_of_report(replace(report, latency=(noisy,)))).text
    assert "too noisy" in text
    assert "faster" not in text


def test_a_large_page_is_made_quickly_and_stays_small() -> None:
    page_of_report(sample_report())  # templates are read once
    begin = time.process_time()
    page = page_of_report(large_report())
    assert time.process_time() - begin < 1.0
    assert len(page.encode()) < 600_000
    Document(page)


# -- what a browser makes of it ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(width=390, height=844) as browser:
        yield browser


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    "report",
    [sample_report(), sample_in_bytes(), hostile_report(), large_report()],
    ids=["plain", "bytes", "hostile", "large"],
)
def test_a_browser_draws_every_page_without_a_complaint_and_fetches_nothing(
    browser: Browser, tmp_path: Path, report: Report, width: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of_report(report), encoding="utf-8")
    browser.said.clear()
    browser.fetched.clear()
    browser.resize(width, 900)
    browser.open(path)
    assert browser.said == []
    assert browser.fetched == [path.as_uri()]
    assert browser.run("document.querySelectorAll('.chart canvas').length") == len(
        browser.run("JSON.parse(document.getElementById('chart-data').textContent)")
    )
    assert browser.run("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"


@needs_browser
@pytest.mark.slow
def test_a_table_sorts_with_the_keyboard_and_says_how(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of_report(sample_report()), encoding="utf-8")
    browser.open(path)
    names = "[...document.querySelectorAll('#layers tbody th')].map(cell => cell.textContent)"
    heading = "document.querySelectorAll('#layers thead button')[3]"
    assert browser.run(names) == ["/conv1/Conv", "/conv2/Conv", "/fc1/Gemm", "/fc2/Gemm"]
    browser.run(f"{heading}.focus()")
    browser.press("Enter", 13, "\r")
    assert browser.run(f"{heading}.closest('th').ariaSort") == "descending"
    assert browser.run(names) == ["/conv2/Conv", "/fc1/Gemm", "/conv1/Conv", "/fc2/Gemm"]
    browser.press("Enter", 13, "\r")
    assert browser.run(f"{heading}.closest('th').ariaSort") == "ascending"
    assert browser.run(names) == ["/fc2/Gemm", "/conv1/Conv", "/fc1/Gemm", "/conv2/Conv"]
    browser.run("document.querySelectorAll('#layers thead button')[9].click()")  # ms, of which one is missing
    assert browser.run(names)[-1] == "/fc2/Gemm"
    browser.run("document.querySelectorAll('#layers thead button')[0].click()")
    assert browser.run(names)[0] == "/conv1/Conv"
    assert browser.run("document.querySelectorAll('#layers th[aria-sort]:not([aria-sort=none])').length") == 1


@needs_browser
@pytest.mark.slow
def test_links_and_choices_do_what_they_say(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of_report(sample_report()), encoding="utf-8")
    browser.open(path)
    browser.run("document.querySelector('#layers tbody a').click()")
    assert browser.run("location.hash") == "#group-0"
    assert browser.run("document.querySelector(':target .name').textContent") == "conv1.weight"
    shown = "[...document.querySelectorAll('.bars li')].filter(bar => bar.offsetParent).map(bar => bar.className)"
    assert set(browser.run(shown)) == {"of macs"}
    browser.run("document.getElementById('by-ms').click()")
    assert browser.run(shown) == ["of ms"] * 4


@needs_browser
@pytest.mark.slow
def test_a_script_that_got_into_a_page_would_not_run(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page = page_of_report(sample_report())
    path.write_text(page.replace("<main", "<script>document.title = 'broken'</script><main"), encoding="utf-8")
    browser.said.clear()
    browser.open(path)
    assert browser.run("document.title") == "lenet5_mnist.onnx, compressed"
    assert "Content Security Policy" in browser.said[0]
    browser.said.clear()
