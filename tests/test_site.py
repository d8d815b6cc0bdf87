"""The site: every option, every public name and every page is on it, and its examples run."""

import importlib
import inspect
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from benchmarks import options
from onnxadmm.demo import DemoFiles
from tests.browser import Browser, needs_browser

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SETTINGS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
FUNCTIONS = sorted(name for name in oa.__all__ if inspect.isfunction(getattr(oa, name)))
_FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> object:
    """The site's own code, which stands beside its pages."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("hooks")


def documented() -> set[str]:
    """The full names that the reference shows; a module of errors stands for all that is in it."""
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    return set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))


def docstring(name: str) -> str:
    return inspect.getdoc(getattr(oa, name)) or ""


def section(name: str, title: str) -> str:
    """What stands under a heading of a docstring; empty without one."""
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)*)", docstring(name) + "\n", re.MULTILINE)
    return "" if found is None else inspect.cleandoc(found[1])


def named_in_navigation() -> set[str]:
    return set(re.findall(r"(?:- |: )([\w/.-]+\.md)$", SETTINGS, re.MULTILINE))


def test_the_page_of_options_is_what_the_command_line_says() -> None:
    written = (DOCS / "options.md").read_text(encoding="utf-8")
    assert written == options.page(), "make it anew: python -m benchmarks.options > docs/options.md"


def test_the_page_of_options_names_every_option_of_every_verb() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", options.page(), re.DOTALL | re.MULTILINE))
    group = options.typer.main.get_command(options.app)
    assert set(sections) >= set(group.commands)  # type: ignore[attr-defined]
    for verb, command in group.commands.items():  # type: ignore[attr-defined]
        for field in command.params:
            for name in (*field.opts, *field.secondary_opts):
                assert field.param_type_name == "argument" or f"`{name}`" in sections[verb], (verb, name)


def undocumented(shown: set[str]) -> list[str]:
    """The public names that a reference does not show."""
    homes = {name: home for home, names in oa._HOMES.items() for name in names}
    return [name for name in oa.__all__ if not {f"{homes[name]}.{name}", homes[name]} & shown]


def test_the_reference_shows_every_public_name() -> None:
    assert not undocumented(documented()), "add them to docs/reference.md"


def test_a_public_name_that_the_reference_forgets_is_noticed() -> None:
    assert undocumented(documented() - {"onnxadmm.plan.plan.Plan", "onnxadmm.errors"}) == ["OnnxAdmmError", "Plan"]


def test_what_the_reference_shows_exists() -> None:
    for full in documented():
        home, _, name = full.rpartition(".")
        assert full == "onnxadmm.errors" or hasattr(importlib.import_module(home), name), full


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_tells_arguments_results_and_errors(name: str) -> None:
    parameters = set(inspect.signature(getattr(oa, name)).parameters)
    told = re.findall(r"^(\w+):", section(name, "Args"), re.MULTILINE)
    assert set(told) == parameters
    for title in ("Returns", "Raises"):
        assert section(name, title), f"{name} has no {title}"


@pytest.mark.parametrize("name", sorted(oa.__all__))
def test_every_public_name_has_an_example(name: str) -> None:
    assert _FENCED.search(section(name, "Examples"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(oa.__all__))
def test_the_example_of_a_public_name_runs(
    name: str, digits: DemoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_table: None
) -> None:
    shutil.copy(digits.model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    said: list[tuple[object, ...]] = []
    for code in _FENCED.findall(section(name, "Examples")):
        exec(code, {"oa": oa, "images": few_images(digits), "print": lambda *words: said.append(words)})
    assert "print(" not in section(name, "Examples") or said


def few_images(digits: DemoFiles) -> NDArray[np.float32]:
    with np.load(digits.training) as archive:
        return archive["images"][:128, None].astype(np.float32) / np.float32(16)


def test_every_page_is_in_the_navigation(hooks: object) -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    pages |= {hooks.place(path) for path in hooks.OUTSIDE}  # type: ignore[attr-defined]
    assert named_in_navigation() == pages


def pages() -> Iterator[Path]:
    yield from sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", [path.relative_to(DOCS).as_posix() for path in pages()])
def test_links_of_a_page_lead_to_files_of_the_repository(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r'(?:\]\(|<img src=")([^)#"\s]+)', text):
        assert re.match(r"[a-z]+:", target) or (DOCS / page).parent.joinpath(target).is_file(), target


def test_links_are_changed_for_the_site(hooks: object) -> None:
    change = hooks.for_the_site  # type: ignore[attr-defined]
    assert change("README.md", "[m](docs/method.md#calibration)") == "[m](method.md#calibration)"
    assert change("docs/guide.md", "[q](../benchmarks/quantized.md)") == "[q](benchmarks/quantized.md)"
    assert change("docs/cookbook/index.md", "[r](../../README.md)") == "[r](../overview.md)"
    assert change("README.md", "[s](samples/custom_loop.py)") == "[s](samples/custom_loop.py.txt)"
    assert change("README.md", '<img src="docs/images/report.png">') == '<img src="images/report.png">'
    for left in ("[a](https://example.org/README.md)", "[b](#here)", "[c](no/such/file.md)"):
        assert change("README.md", left) == left


def test_no_page_fetches_anything() -> None:
    assert "font: false" in SETTINGS
    assert "extra_javascript" not in SETTINGS
    assert "extra_css" not in SETTINGS


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def points_lost() -> dict[str, str]:
    """By how many times fewer multiply-accumulates, the points that a calibrated ResNet-20 loses, in words."""
    (table,) = re.findall(
        r"^## ResNet-20 on CIFAR-10\n(.*?)(?=^## )", text_of("benchmarks/calibration.md"), re.DOTALL | re.MULTILINE
    )
    rows = re.findall(
        r"^\| ([\d.]+x) \| `compress --calibrate --effort normal` \| .*? \| ([\d.]+)", table, re.MULTILINE
    )
    return {times: f"{float(points):.1f} points at {times}" for times, points in rows}


def test_figures_of_results_are_those_of_the_benchmarks() -> None:
    results = text_of("docs/results.md")
    for times in ("1.5x", "2x"):
        assert points_lost()[times] in results, "see benchmarks/calibration.md"
    (small, dense) = re.search(r"([\d.]+ %) of ([\d.]+ %) test accuracy", results).groups()  # type: ignore[union-attr]
    (row,) = re.findall(r"^\| test accuracy \|(.*)$", text_of("README.md"), re.MULTILINE)
    assert [cell.strip() for cell in row.split("|")][:2] == [dense, small], "see the README"
    for page, shrunk in (("coverage_zoo", "249"), ("coverage_full", "21")):
        assert re.match(rf"{shrunk} models .*: {shrunk} shrunk\.", text_of(f"benchmarks/{page}.md"))
        assert f"{shrunk} of {shrunk}" in results
    many, proven = re.search(
        r"^(\d+) models .*?: (\d+) shrunk and proven", text_of("benchmarks/real_models.md"), re.MULTILINE
    ).groups()  # type: ignore[union-attr]
    assert f"{proven} of {many} models" in results


def test_figures_of_other_tools_are_those_of_the_benchmarks() -> None:
    page = text_of("docs/comparison.md")
    measured = re.findall(r"^\| \[.*\]\(\.\./benchmarks/(\w+)\.md\).*?\| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert [name for name, _, _ in measured] == ["coverage_zoo", "coverage_full", "calibration"]
    for _, _, theirs in measured[:2]:
        assert theirs in text_of("README.md")
    ours, theirs = measured[2][1:]
    for method, cell in (("`compress --calibrate --effort normal`", ours), ("onnxsim 0.8.1", theirs)):
        accuracy, seconds = re.search(r"([\d.]+ %).*, (\d+) s", cell).groups()  # type: ignore[union-attr]
        row = next(line for line in text_of("benchmarks/calibration.md").splitlines() if f"| 1.5x | {method} " in line)
        assert f"| {accuracy}" in row
        assert f"| {seconds} |" in row


def test_figures_of_torch_pruning_are_those_of_the_benchmark() -> None:
    _, _, table = text_of("benchmarks/quality.md").partition("## ResNet-20 on CIFAR-10, 33 % of the MACs\n")
    measured = dict(re.findall(r"^\| (.*?) \| ([\d.]+ %)", table.partition("\n## ")[0], re.MULTILINE))
    told = re.findall(r"^\| (.*?) \| ([\d.]+ %) \|$", text_of("docs/comparison.md"), re.MULTILINE)
    ways = {
        "onnxadmm, `--method calibrated`, the default": "calibration (the default)",
        "onnxadmm, `--method admm`": "gates that close while training (`--method admm`)",
        "Torch-Pruning 1.6.1, group-sparse training (`GroupNormPruner`)": "Torch-Pruning's group-sparse trainer",
    }
    assert dict(told) == {name: measured[method] for name, method in ways.items()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` does."""
    program = next((path for path in (ROOT / ".venv-site").glob("*/mkdocs")), None)
    if program is None:
        pytest.skip("`make site` has not set up what builds the site")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [program, "build", "--strict", "--site-dir", folder], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_names_no_other_host(site: Path) -> None:
    elsewhere = '"?(?:https?:)?//'
    fetched = re.compile(f"<(?:script|img|iframe)[^>]*src={elsewhere}|<link[^>]*stylesheet[^>]*href={elsewhere}")
    built = list(site.rglob("*.html"))
    assert len(built) > 30
    assert not [path.name for path in built if fetched.search(path.read_text(encoding="utf-8"))]


@pytest.mark.slow
def test_every_link_of_the_site_leads_to_a_file(site: Path) -> None:
    for path in site.rglob("*.html"):
        if path.name == "404.html":  # whose links begin at the root of a server
            continue
        targets = re.findall(r'(?:href|src)="([^"#?]+)', path.read_text(encoding="utf-8"))
        missing = [target for target in targets if not _leads(path, target)]
        assert not missing, path


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("")
    assert _leads(page, "page.html")
    assert _leads(page, "https://example.org")
    assert not _leads(page, "other.html")


def _leads(page: Path, target: str) -> bool:
    return bool(re.match(r"[a-z]+:", target)) or page.parent.joinpath(target).exists()


@pytest.mark.slow
@needs_browser
def test_a_browser_opens_the_site_from_a_disk_and_fetches_nothing_else(site: Path) -> None:
    with Browser(width=390, height=844) as browser:
        for name in ("index", "reference", "cookbook/detection"):
            browser.open(site / f"{name}.html")
            # Wide tables and code scroll in themselves.
            assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.run("document.title") == "Detection - onnxadmm"
    assert not browser.said
    assert all(address.startswith(("file:", "data:", "blob:")) for address in browser.fetched)
