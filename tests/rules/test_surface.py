"""Rules speak through the public methods of Visit and Edit, all of which say what they are and do."""

import ast
import inspect
import textwrap
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from onnxadmm.rules import facts
from onnxadmm.rules.edit import Edit, PrunedValue
from onnxadmm.rules.facts import Facts, Operand
from onnxadmm.rules.labels import Labels
from onnxadmm.rules.node import NodeView
from onnxadmm.rules.visit import Visit
from tests.rules import made_up

RULES = Path(inspect.getfile(facts)).parent
SURFACE: dict[str, type] = {"Visit": Visit, "Edit": Edit, "NodeView": NodeView, "Operand": Operand}
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(RULES.glob("*.py"))}
#: Files that declare rules.
DECLARING = sorted(name for name, source in SOURCES.items() if "\n@rule(" in source)


def members(kind: type) -> set[str]:
    """The public methods, properties and fields of a class."""
    return {name for name in (*dir(kind), *inspect.get_annotations(kind)) if not name.startswith("_")}


def digging(source: str) -> list[str]:
    """What functions of a source use of their parameters of these classes that is not public; anything private."""
    found: list[str] = []
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        kinds = {
            argument.arg: SURFACE[ast.unparse(argument.annotation)]
            for argument in (*function.args.args, *function.args.kwonlyargs)
            if argument.annotation is not None and ast.unparse(argument.annotation) in SURFACE
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in kinds:
                if node.attr not in members(kinds[node.value.id]):
                    found.append(ast.unparse(node))
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and ast.unparse(node.value) != "self":
                found.append(ast.unparse(node))
    return found


def test_there_are_files_that_declare_rules() -> None:
    assert {"attention", "convolution", "elementwise", "sizes", "quantised"} <= set(DECLARING)


@pytest.mark.parametrize("name", DECLARING)
def test_rules_use_what_is_public(name: str) -> None:
    assert digging(SOURCES[name]) == []


@pytest.mark.parametrize("name", DECLARING)
def test_rules_know_neither_the_graph_nor_all_facts(name: str) -> None:
    imported = {
        alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(SOURCES[name]))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {entry for entry in imported if entry.startswith(("onnx_ir", "onnxadmm.graph"))}
    assert not imported & {"onnxadmm.rules.facts.Facts", "onnxadmm.rules.labels.Labels"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(visit: Visit) -> None: visit.facts.labels.new(3)", ["visit.facts"]),
        ("def f(visit: Visit) -> None: visit._facts.reads", ["visit._facts"]),
        ("def f(*, edit: Edit) -> None: edit.node.inputs", ["edit.node"]),
        ("def f(visit: Visit) -> None: visit.operand(0)._labels", ["visit.operand(0)._labels"]),
        ("def f(data: Operand) -> None: data.value", ["data.value"]),
        ("def f(visit: Visit) -> None: visit.tie(visit.operand(0).axes[0], None)", []),
    ],
)
def test_digging_is_found(source: str, found: list[str]) -> None:
    assert digging(source) == found


@pytest.mark.parametrize("kind", [Visit, Edit, Operand, PrunedValue, Labels], ids=lambda kind: kind.__name__)
def test_every_public_member_is_described(kind: type) -> None:
    for name in sorted(members(kind)):
        if name in inspect.get_annotations(kind):
            assert f"{name}: " in (kind.__doc__ or ""), name
        else:
            assert inspect.getdoc(getattr(kind, name)), name


def test_every_field_of_the_facts_is_described() -> None:
    kinds = [kind for kind in vars(facts).values() if is_dataclass(kind) and kind.__module__ == facts.__name__]
    assert Facts in kinds
    for kind in kinds:
        described = inspect.getdoc(kind) or ""
        assert [field.name for field in fields(kind) if f"\n    {field.name}: " not in described] == [], kind


def examples(kind: type) -> dict[str, ast.FunctionDef]:
    """The functions in the docstring of a class, by name."""
    blocks, inside = [], False
    for line in (inspect.getdoc(kind) or "").splitlines():
        inside = (inside or line.startswith("    ")) and (not line or line.startswith("    "))
        blocks.append(line if inside else "")
    tree = ast.parse(textwrap.dedent("\n".join(blocks)))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("kind", [Visit, Edit], ids=lambda kind: kind.__name__)
def test_the_examples_of_the_docstrings_are_rules_that_are_tested(kind: type) -> None:
    found = examples(kind)
    assert len(found) >= 2
    for name, function in found.items():
        tested = ast.parse(inspect.getsource(getattr(made_up, name))).body[0]
        assert ast.unparse(function) == ast.unparse(tested), name
