"""Who may import whom: a table in words, held against every import statement of the package."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "onnxadmm"

#: For each room (a folder, or a file at the top) the rooms it may import. They run one way: no room reaches itself.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "files": {"errors"},
    "graph": {"errors", "files"},
    "rules": {"errors", "graph"},
    "admm": {"errors"},
    "units": {"errors", "graph", "rules", "admm"},
    "plan": {"errors", "graph", "units", "admm"},
    "train": {"errors", "graph", "admm"},
    "rewrite": {"errors", "graph", "rules", "units", "plan"},
    "bench": {"errors", "graph", "progress"},
    "report": {"errors", "files", "progress", "graph", "units", "plan", "bench"},
    "console": {"errors", "progress", "report"},
    "recipe": {"errors", "admm", "train"},
    "output": {"errors", "files"},
    "surgery": {"errors", "graph", "units", "plan", "rewrite", "bench", "output"},
    "bisect": {"errors", "files", "graph", "units", "plan", "rewrite", "bench", "report", "surgery"},
    "trial": {"errors", "train", "bench"},
    "doctor": {"bench", "report"},
    "measure": {"errors", "progress", "graph", "units", "plan", "rewrite", "train", "bench", "report", "doctor"},
}
MAY_IMPORT["journal"] = {"progress", "report"}
MAY_IMPORT["checkpoint"] = {"errors", "files", "progress", "report", "admm"}
MAY_IMPORT["training"] = {"progress", "graph", "plan", "admm", "train", "recipe", "journal"}
_BELOW = set(MAY_IMPORT)
MAY_IMPORT["walk"] = _BELOW - {"bisect", "console", "doctor", "trial"}
MAY_IMPORT["compress"] = {"bench", "errors", "graph", "journal", "output", "plan", "progress", "recipe", "report"}
MAY_IMPORT["compress"] |= {"surgery", "train", "walk"}
MAY_IMPORT["demo"] = {"compress", "errors", "plan", "progress", "recipe", "report"}
MAY_IMPORT["__init__"] = {"compress", "errors", "graph", "plan", "recipe", "report", "surgery"}
MAY_IMPORT["cli"] = _BELOW | {"compress", "demo"}

#: The one door to each foreign library that has one: a file, or a whole room.
DOORS: dict[str, set[str]] = {
    "onnxsim": {"graph/simplify.py"},
    "PIL": {"train/sources.py"},
    "typer": {"cli"},
}


def room_of(path: Path) -> str:
    """The room a file of the package belongs to."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(tree: ast.AST) -> set[str]:
    """Every module an abstract syntax tree imports, by its full dotted name; relative imports begin with a dot."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # ``from onnxadmm import surgery`` imports a room as well as ``import onnxadmm.surgery`` does.
            found.update(f"{module}.{alias.name}" for alias in node.names) if module == "onnxadmm" else found.add(
                module
            )
    return found


def rooms_imported(tree: ast.AST) -> set[str]:
    """The rooms of this package that a file imports."""
    return {name.split(".")[1] for name in imported(tree) if name.startswith("onnxadmm.")}


@cache
def trees() -> dict[Path, ast.Module]:
    """Every source file of the package, parsed."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def test_every_room_stands_in_the_table() -> None:
    assert {room_of(path) for path in trees()} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_room_imports_only_what_it_may(room: str) -> None:
    for path, tree in trees().items():
        if room_of(path) == room:
            forbidden = rooms_imported(tree) - MAY_IMPORT[room] - {room}
            assert not forbidden, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(forbidden))}"


def test_the_table_runs_one_way() -> None:
    left = {room: set(others) for room, others in MAY_IMPORT.items()}
    while left:
        free = {room for room, others in left.items() if not others & set(left)}
        assert free, f"a circle among {', '.join(sorted(left))}"
        left = {room: others for room, others in left.items() if room not in free}


def test_imports_are_absolute() -> None:
    for path, tree in trees().items():
        assert not [name for name in imported(tree) if name.startswith(".")], path


@pytest.mark.parametrize("library", sorted(DOORS))
def test_foreign_library_has_one_door(library: str) -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path, tree in trees().items()
        if room_of(path) not in DOORS[library] and any(name.split(".")[0] == library for name in imported(tree))
    }
    assert users <= DOORS[library]


def test_no_training_framework_is_imported() -> None:
    for path, tree in trees().items():
        names = {name.split(".")[0] for name in imported(tree)}
        assert not names & {"torch", "tensorflow", "keras", "jax", "sklearn", "scipy"}, path


def test_nothing_imports_a_module_by_a_name_that_is_hidden_from_this_test() -> None:
    hidden = {
        str(path.relative_to(PACKAGE))
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module")
        and not (node.args and isinstance(node.args[0], ast.Constant) and "onnxadmm" not in str(node.args[0].value))
    }
    assert hidden == set()


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import onnxadmm.graph.model", {"graph"}),
        ("from onnxadmm.plan.plan import Plan", {"plan"}),
        ("from onnxadmm import surgery", {"surgery"}),
        ("def late():\n    from onnxadmm.cli import main", {"cli"}),
        ("import onnx\nfrom numpy import array", set()),
    ],
)
def test_an_import_is_seen_however_it_is_written(source: str, rooms: set[str]) -> None:
    assert rooms_imported(ast.parse(source)) == rooms
