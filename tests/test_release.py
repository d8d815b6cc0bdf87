"""What a release consists of: metadata, wheel, source archive, and the workflows that build and try them."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import onnxadmm as oa

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    return found


def triggers(name: str) -> dict[str, Any]:
    """What starts a workflow; YAML 1.1 reads the word ``on`` as true."""
    found: dict[str, Any] = workflow(name)[True]  # type: ignore[index]
    return found


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def build(root: Path, folder: Path, *words: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def names_of(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(folder: Path) -> Message:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_the_demo(built: Path) -> None:
    names = names_of(built)
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "onnxadmm").rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    digits = {f"onnxadmm/samples/digits/{path.name}" for path in (ROOT / "samples" / "digits").iterdir()}
    assert "onnxadmm/py.typed" in names
    assert {name for name in names if ".dist-info/" not in name} == files | digits


@pytest.mark.slow
def test_the_source_archive_is_small_and_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    assert source.stat().st_size < 2_000_000
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    assert {path.name for path in (root / "tests").iterdir()} == {"smoke.py"}
    assert names_of(build(root, tmp_path / "dist", "-t", "wheel")) == names_of(built)


@pytest.mark.slow
def test_the_metadata_say_what_it_is(built: Path) -> None:
    metadata = metadata_of(built)
    assert metadata["Version"] == oa.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    classifiers = metadata.get_all("Classifier", [])
    assert "Typing :: Typed" in classifiers
    prefix = "Programming Language :: Python :: 3."
    assert [line.removeprefix(prefix[:-2]) for line in classifiers if line.startswith(prefix)] == PYTHONS
    assert metadata["Description-Content-Type"] == "text/markdown"


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_a_workflow_is_yaml_whose_commands_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"] for step in steps(path.stem) if "run" in step]
    assert commands
    for command in commands:
        assert set(re.findall(r"\bmake (\w+)", command)) <= targets
        for file in re.findall(r"[\w./]*\b(?:\.ci|tests)/[\w.]+", command):
            assert (ROOT / file.lstrip("/")).exists(), file
    assert all(("run" in step) != ("uses" in step) for step in steps(path.stem))


def test_every_system_and_python_is_tried() -> None:
    jobs = workflow("ci")["jobs"]
    matrix = jobs["smoke"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == PYTHONS
    assert {"make lint", "make types", "make site", "make test"} <= {
        step["run"].removesuffix(" PYTHON=python") for step in steps("ci") if "run" in step
    }
    # The models and data beside the repository are promised where CI is true, which the runners say of themselves.
    assert jobs["test"]["env"]["CI"] == "false"


def test_a_tag_makes_a_release() -> None:
    assert triggers("release") == {"push": {"tags": ["v*"]}}
    assert "tags" not in triggers("ci")["push"]


@pytest.fixture
def absolute_links() -> ModuleType:
    spec = importlib.util.spec_from_file_location("absolute_links", ROOT / ".ci" / "absolute_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_the_readme_are_whole_on_the_package_page(absolute_links: ModuleType) -> None:
    where = "https://example.org/owner/name"
    text = absolute_links.with_whole_links((ROOT / "README.md").read_text(encoding="utf-8"), where, "v1.2.3")
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'<img src="([^"]+)"', text)
    assert len(targets) > 15
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert f"]({where}/blob/v1.2.3/docs/guide.md#the-report)" in text
    assert f'<img src="{where}/raw/v1.2.3/docs/images/report.png"' in text


def test_the_metadata_of_a_release_name_the_repository(absolute_links: ModuleType) -> None:
    text = absolute_links.with_addresses(
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"), "https://example.org/o/n"
    )
    urls = tomllib.loads(text)["project"]["urls"]
    assert urls["Repository"] == "https://example.org/o/n"
    assert tomllib.loads(text)["project"]["scripts"] == SETTINGS["project"]["scripts"]
    assert "urls" not in SETTINGS["project"]
