"""The README and the pages beside it: the code runs, the links lead somewhere, the map is the house."""

import re
import shutil
from pathlib import Path

import pytest
import typer

import onnxadmm as oa
from onnxadmm.cli.app import app
from onnxadmm.demo import DemoFiles
from tests.test_imports import MAY_IMPORT

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "samples/README.md"),
    *("docs/guide.md", "docs/method.md", "docs/training.md", "docs/operators.md"),
    *("docs/architecture.md", "docs/extending.md", "docs/faq.md", "docs/index.md", "docs/options.md", "docs/scale.md"),
)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_readmes_python_runs_as_it_stands(
    digits: DemoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_latency: None
) -> None:
    (code,) = re.findall(r"## From Python\n\n```python\n(.*?)```", text_of("README.md"), re.DOTALL)
    for path in (digits.model, digits.training):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    said: list[tuple[object, ...]] = []
    # As written, but for the length of the training.
    short = "recipe=oa.Recipe(epochs=2, retrain_epochs=1), out="
    assert "out=" in code
    exec(code.replace("out=", short), {"print": lambda *words: said.append(words)})
    (parameters, decibels), (passed,) = said
    assert parameters <= 0.3 * 124_778
    assert decibels >= 80
    assert passed is True
    assert (tmp_path / "small.onnx").exists()
    assert (tmp_path / "out" / "report.md").exists()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page)) + re.findall(r'<img src="([^"]+)"', text_of(page))
    for target in targets:
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_the_readme_names_every_verb_and_no_other() -> None:
    (table,) = re.findall(r"\| verb \|.*?(?=\n\n)", text_of("README.md"), re.DOTALL)
    named = {verb for row in table.splitlines()[2:] for verb in re.findall(r"`(\w+)`", row.split("|")[1])}
    registered = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert named == registered


def test_the_readmes_map_names_every_folder() -> None:
    (drawn,) = re.findall(r"## Map of the repository\n\n```\n(.*?)```", text_of("README.md"), re.DOTALL)
    for room in MAY_IMPORT:
        if (ROOT / "onnxadmm" / room).is_dir():
            assert f"{room}/" in drawn, room
    for folder in ("samples/", "benchmarks/", "docs/", "tests/"):
        assert folder in drawn


def test_contributing_names_every_target_of_make() -> None:
    text = text_of("CONTRIBUTING.md")
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    assert len(targets) > 4
    assert set(re.findall(r"`make (\w+)", text)) == targets


def test_the_changelog_tells_of_this_version_and_of_what_comes() -> None:
    headings = re.findall(r"^## (\S+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", oa.__version__]


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/method.md", "docs/faq.md"])
def test_options_on_the_pages_exist(page: str) -> None:
    group = typer.main.get_command(app)
    ours = {option for command in group.commands.values() for field in command.params for option in field.opts}
    ours |= {
        option for command in group.commands.values() for field in command.params for option in field.secondary_opts
    }
    ours |= {option for field in group.params for option in field.opts}
    foreign = {"--saved-model", "--opset", "--readme"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text_of(page)))
    assert named <= ours | foreign
