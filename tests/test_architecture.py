"""The pages on how the package is built and extended: picture and tables are true, the how-tos are followed."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields
from functools import cache
from os import environ
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from benchmarks import architecture
from onnxadmm.operators.table import Operator
from tests.shared import ENGINES, needs_training
from tests.test_imports import MAY_IMPORT

ROOT = Path(__file__).resolve().parents[1]
PAGE, HOW_TO = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("architecture", "extending"))
#: What a follower of the page has before him.
COPIED = ("onnxadmm", "tests", "benchmarks", "docs", "samples", "README.md", "pyproject.toml")
_BLOCK = re.compile(
    r"<!-- how-to (?P<name>[\w-]+)(?:, after (?P<after>[\w-]+))?: (?P<file>\S+) -->\n"
    r"```(?P<language>\w+)\n(?P<text>.*?)```\n",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One marked block of the page: a new file, the end of one, or a change to one."""

    file: str
    language: str
    text: str

    def apply(self, root: Path) -> None:
        path = root / self.file
        if self.language == "sh":
            return  # the page of operators, whose row is looked at instead
        if self.language == "diff":
            text = path.read_text(encoding="utf-8")
            for hunk in self.text.split("@@\n"):
                old, new = (_side(hunk, sign) for sign in "-+")
                assert text.count(old) == 1, f"{self.file} has {text.count(old)} times:\n{old}"
                text = text.replace(old, new)
            path.write_text(text, encoding="utf-8")
        elif path.exists():
            path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{self.text}", encoding="utf-8")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.text, encoding="utf-8")


def _side(hunk: str, sign: str) -> str:
    """One side of a change: the lines with its sign, and those without one."""
    lines = hunk.splitlines(keepends=True)
    assert all(line[0] in "+- \n" for line in lines), hunk
    return "".join(line[1:] if line[0] != "\n" else line for line in lines if line[0] in f"{sign} \n")


@cache
def how_tos() -> dict[str, tuple[str | None, list[Block]]]:
    """By name what a how-to goes on from, and its blocks."""
    found: dict[str, tuple[str | None, list[Block]]] = {}
    for match in _BLOCK.finditer(HOW_TO):
        after, blocks = found.setdefault(match["name"], (match["after"], []))
        assert after == match["after"], match["name"]
        blocks.append(Block(match["file"], match["language"], match["text"]))
    return found


def follow(name: str, root: Path) -> list[Block]:
    """Do what the page says, in a copy of the repository; the blocks of this how-to."""
    after, blocks = how_tos()[name]
    if after is None:
        for part in COPIED:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, root / part)
    else:
        follow(after, root)
    for block in blocks:
        block.apply(root)
    return blocks


def child(root: Path, *words: object) -> str:
    """Run Python on the copy; what it printed."""
    command = [sys.executable, *(str(word) for word in words)]
    where = {**environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=root, env=where, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pytest_on(root: Path, *words: str) -> int:
    """Run tests of the copy; how many passed, which all did."""
    printed = child(root, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words)
    passed = re.search(r"(\d+) passed", printed)
    assert passed, printed
    assert "skipped" not in printed, printed
    return int(passed[1])


def row(root: Path, operator: str, domain: str = "") -> str:
    """The row of the page of operators that the copy makes."""
    code = "import sys; from benchmarks.operators import cells; from onnxadmm.operators.table import find"
    return child(root, "-c", f"{code}; print(cells(find(*sys.argv[1:])))", domain, operator)


@pytest.mark.slow
def test_the_picture_is_what_the_imports_are() -> None:
    drawn = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == architecture.picture(), "make it anew: python -m benchmarks.architecture > docs/architecture.svg"


@pytest.mark.slow
def test_the_picture_shows_every_room_and_arrows_that_go_down() -> None:
    tree = ElementTree.fromstring(architecture.picture())
    texts = {element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")}
    shown = {room.removeprefix("train.") for room in MAY_IMPORT if not room.endswith("__")} - {"cli"}
    assert shown - set(architecture.FOUNDATION) <= texts
    layout = architecture.arrange(architecture.without_detours(architecture.imports()))
    assert all(layout.floors[room] > layout.floors[other] for room in layout.edges for other in layout.edges[room])
    assert len(set(zip(layout.floors.values(), layout.slots.values(), strict=True))) <= len(layout.slots)
    assert set(architecture.STEPS) <= set(layout.floors)


def test_an_arrow_that_follows_from_others_is_left_out_and_no_other() -> None:
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"a", "c"}}
    assert architecture.without_detours(edges) == {"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a"}}


def test_the_numbers_in_the_picture_are_those_of_the_way() -> None:
    steps = {match[2]: int(match[1]) for match in re.finditer(r"^\| (\d+) \| `([\w.]+)` \|", PAGE, re.MULTILINE)}
    assert steps == architecture.STEPS


def test_every_file_that_the_page_names_exists() -> None:
    outside = re.sub(r"```.*?```", "", PAGE + HOW_TO, flags=re.DOTALL)
    named = set(re.findall(r"`((?:[\w.]+/)*[\w]+(?:\.py|/))`", outside)) - {"data/", "rules.py", "__init__.py"}
    assert len(named) > 40
    places = [ROOT, ROOT / "onnxadmm", *(path.parent for path in (ROOT / "onnxadmm").rglob("__init__.py"))]
    for name in named:
        assert any((place / name).exists() for place in places), name


def test_every_fact_of_an_operator_has_a_row_and_is_asked_for_where_it_says() -> None:
    (table,) = re.findall(r"\| fact \| who asks \|\n\|---\|---\|\n(.*?)\n\n", PAGE, re.DOTALL)
    told: set[str] = set()
    for line in table.splitlines():
        facts, files = (re.findall(r"`([\w/]+(?:\.py)?)`", cell) for cell in line.strip("| ").split(" | "))
        told.update(facts)
        for file in files:
            source = (ROOT / "onnxadmm" / file).read_text(encoding="utf-8")
            assert any(re.search(rf"\.{fact}\b", source) for fact in facts), (file, facts)
    # Its key, and what only the page of operators tells.
    assert told == {field.name for field in fields(Operator)} - {"name", "domain", "effect", "note"}


@pytest.mark.parametrize("name", sorted(how_tos()))
def test_the_page_counts_the_files_of_a_how_to(name: str) -> None:
    first = re.search(rf"<!-- how-to {name}[:,]", HOW_TO)
    assert first
    stated = re.findall(r"\*\*(?:[A-Z][a-z ]+: )?(\d+) files?\*\*", HOW_TO[: first.start()])
    assert int(stated[-1]) == len({block.file for block in how_tos()[name][1]})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in how_tos() if not name.startswith("own-")))
def test_what_the_page_writes_has_the_style_of_the_house(name: str, tmp_path: Path) -> None:
    files = {block.file for block in follow(name, tmp_path) if block.file.endswith(".py")}
    child(tmp_path, "-m", "ruff", "check", "--no-cache", *files)
    child(tmp_path, "-m", "ruff", "format", "--no-cache", "--check", *files)


def test_a_change_that_does_not_fit_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\n")
    Block("a.py", "diff", " one\n-two\n+three\n").apply(tmp_path)
    assert (tmp_path / "a.py").read_text() == "one\nthree\n"
    with pytest.raises(AssertionError, match=r"a\.py has 0 times"):
        Block("a.py", "diff", " one\n-two\n+three\n").apply(tmp_path)


# The how-tos


@pytest.mark.slow
def test_a_rule_of_the_page_shrinks_exactly_and_its_faults_are_noticed(tmp_path: Path) -> None:
    follow("rule", tmp_path)
    files = [f"tests/rules/test_{name}.py" for name in ("table", "faults")]
    files += [f"tests/rewrite/test_{name}.py" for name in ("equivalence", "all_operators")]
    assert pytest_on(tmp_path, *files, "-k", "[Det] or -Det] or Det- or every_rule_has or reached") >= 6
    assert "'refused'" in row(tmp_path, "Det")


@pytest.mark.slow
def test_a_foreign_rule_of_the_page_shrinks_exactly_and_its_faults_are_noticed(tmp_path: Path) -> None:
    follow("foreign-rule", tmp_path)
    files = ("tests/rules/test_microsoft.py", "tests/rewrite/test_all_operators.py")
    assert pytest_on(tmp_path, *files, "-k", "Inverse or every_rule_has or reached") >= 6


@pytest.mark.slow
@needs_training
def test_a_lowering_of_the_page_trains_with_the_right_gradient(tmp_path: Path) -> None:
    follow("lowering", tmp_path)
    assert pytest_on(tmp_path, "tests/train/lowering/test_table.py", "-k", "Det-0 or every_entry") == 2 * len(ENGINES)
    assert "'lowered', '2'" in row(tmp_path, "Det")


@pytest.mark.slow
@needs_training
@pytest.mark.parametrize("name", ["own-rule", "own-gradient"])
def test_a_users_own_file_of_the_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    (block,) = how_tos()[name][1]
    block.apply(tmp_path)
    child(ROOT, "-m", "tests.follow", name, tmp_path / block.file)


@pytest.mark.slow
@needs_training
def test_a_stranger_compresses_a_model_with_the_rule_of_the_page(
    scale2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the page alone: its rule in a file, the kernel in a library, and the command line."""
    (block,) = how_tos()["own-rule"][1]
    block.apply(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "samples" / "custom_operator")
    sample = importlib.import_module("run")
    onnx.save(sample.make_model(), tmp_path / "model.onnx")
    points, labels = sample.make_data(640, seed=2)
    np.savez(tmp_path / "train.npz", points=points, labels=labels)
    brought = ["--custom-ops", scale2, "--rules", tmp_path / block.file]
    short = [
        "--params",
        "0.5",
        "--epochs",
        "1",
        "--retrain-epochs",
        "1",
        "--batch-size",
        "64",
        "--out",
        tmp_path / "out",
    ]
    compress = ["compress", tmp_path / "model.onnx", "--data", tmp_path / "train.npz", *short, *brought]
    child(ROOT, "-m", "onnxadmm.cli", *compress)  # whose status would be 4 if the proof failed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["after"]["parameters"] <= 0.5 * report["before"]["parameters"]
    # The layer in front of the operator takes part, which the operator would lock without its rule.
    groups = json.loads((tmp_path / "out" / "plan.json").read_text())["groups"]
    assert {group["name"] for group in groups} == {"layer1.weight", "layer2.weight", "layer3.weight"}


@pytest.mark.slow
@needs_training
def test_a_users_own_gradient_with_the_wrong_sign_is_noticed(tmp_path: Path) -> None:
    (block,) = how_tos()["own-gradient"][1]
    Block(block.file, block.language, block.text.replace('"Neg", product', '"Identity", product')).apply(tmp_path)
    with pytest.raises(AssertionError, match="expected a slope"):
        child(ROOT, "-m", "tests.follow", "own-gradient", tmp_path / block.file)


@pytest.mark.slow
@needs_training
def test_a_gradient_of_the_page_is_the_slope(tmp_path: Path) -> None:
    follow("gradient", tmp_path)
    child(tmp_path, "-m", "tests.follow", "gradient", tmp_path)


@pytest.mark.slow
def test_a_budget_of_the_page_is_kept(tmp_path: Path) -> None:
    follow("budget", tmp_path)
    model, plan, small = (tmp_path / name for name in ("model.onnx", "plan.json", "small.onnx"))
    onnx.save(wide_and_narrow(), model)
    child(tmp_path, "-m", "onnxadmm.cli", "plan", model, "--activations", "200", "--params", "0.9", "-o", plan)
    child(tmp_path, "-m", "onnxadmm.cli", "shrink", model, plan, "-o", small)
    assert activations_of(model) == 8 + 3 * 64 + 3 * 16 + 8
    assert 190 < activations_of(small) <= 200
    assert "--activations" in child(tmp_path, "-m", "onnxadmm.cli", "compress", "--help")


def wide_and_narrow() -> onnx.ModelProto:
    """Three layers: what the first writes is seen three times."""
    generator = np.random.default_rng(0)
    text = """<ir_version: 8, opset_import: ["" : 17]> network (float[N, 8] x) => (float[N, 8] y) {
        a = MatMul (x, A) b = Relu (a) c = Sigmoid (b)
        d = MatMul (c, B) e = Relu (d) f = Tanh (e) y = MatMul (f, C) }"""
    model = onnx.parser.parse_model(text)
    for name, shape in (("A", (8, 64)), ("B", (64, 16)), ("C", (16, 8))):
        array = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def activations_of(path: Path) -> int:
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return sum(int(np.prod([dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]])) for value in values)


@pytest.mark.slow
def test_a_source_of_the_page_is_read(tmp_path: Path) -> None:
    follow("source", tmp_path)
    assert pytest_on(tmp_path, "tests/train/data/test_tab.py") == 3


@pytest.mark.slow
def test_a_verb_of_the_page_is_listed_and_runs(tmp_path: Path) -> None:
    follow("verb", tmp_path)
    model = next((tmp_path / "samples" / "digits").glob("*.onnx"))
    assert "digest" in child(tmp_path, "-m", "onnxadmm.cli", "--help")
    assert re.fullmatch(r"[0-9a-f]{64}\n", child(tmp_path, "-m", "onnxadmm.cli", "digest", model))
    assert pytest_on(tmp_path, "tests/test_readme.py", "-k", "names_every_verb") == 1
    assert "## digest\n" in child(tmp_path, "-m", "benchmarks.options")
