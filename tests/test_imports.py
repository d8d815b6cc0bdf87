"""Who may import whom: a table in words, held against every import statement of the package."""

import ast
from functools import cache
from pathlib import Path

import pytest

from onnxadmm.operators.table import DECLARING

PACKAGE = Path(__file__).resolve().parents[1] / "onnxadmm"

#: For each room (a folder, a folder of ``train/``, or a file) the rooms it may import. They run one way: no room
#: reaches itself.
MAY_IMPORT: dict[str, set[str]] = {
    "plain_text": set(),
    "errors": {"plain_text"},
    "progress": set(),
    "child_process": set(),
    "interrupt": set(),
    "files": {"errors"},
    "runtime": {"child_process", "errors"},
    "operators": {"errors"},
    "graph": {"errors", "files", "operators", "runtime"},
    "rules": {"errors", "graph", "operators"},
    "admm": {"errors"},
    "cluster": {"errors"},
    "units": {"errors", "graph", "operators", "rules", "admm"},
    "plan": {"errors", "graph", "units", "admm"},
    "rewrite": {"errors", "graph", "operators", "rules", "units", "plan"},
    "calibrate": {"errors", "graph", "units", "admm", "rewrite"},
    "int8": {"errors", "graph", "operators", "runtime"},
    "bench": {"errors", "graph", "operators", "progress", "runtime"},
    "report": {"errors", "files", "plain_text", "progress", "graph", "units", "plan", "bench"},
    "console": {"errors", "progress", "report"},
    "output": {"errors", "files"},
    "latency": {"graph", "rules", "units", "admm", "plan", "rewrite", "bench", "errors"},
    "surgery": {"console", "errors", "files", "graph", "units", "plan", "progress", "rewrite", "bench", "output"}
    | {"runtime"},
    "planning": {"console", "errors", "graph", "units", "plan", "progress", "rewrite", "latency", "runtime", "surgery"},
    "bisect": {"errors", "files", "graph", "units", "plan", "rewrite", "bench", "report", "runtime", "surgery"},
}


def _train(*rooms: str) -> set[str]:
    return {f"train.{room}" for room in rooms}


# Training, from the engine upwards.
MAY_IMPORT |= {
    "train.__init__": set(),
    "train.engine": {"errors", "runtime"},
    "train.losses": {"errors"},
    "train.figures": {"errors"} | _train("losses"),
    "train.metrics": _train("figures", "losses"),
    "train.optimizer": {"admm"},
    "train.prepare": {"errors", "graph", "operators"} | _train("engine"),
    "train.lowering": {"errors", "graph", "operators", "runtime"} | _train("engine", "prepare"),
    "train.gradients": {"operators"} | _train("lowering", "prepare"),
    "train.backward": {"errors", "graph", "operators", "runtime"}
    | _train("engine", "gradients", "lowering", "prepare"),
    "train.data": {"errors", "graph", "runtime"} | _train("losses", "prepare"),
    "train.batch_statistics": _train("data", "engine", "lowering", "prepare"),
    "train.evaluate": {"errors", "graph", "runtime"}
    | _train("data", "engine", "figures", "losses", "metrics")
    | _train("prepare"),
    "train.artifacts": {"errors", "graph"}
    | _train("backward", "batch_statistics", "engine", "losses", "lowering", "prepare"),
    "train.workers": {"child_process", "errors", "runtime"} | _train("artifacts", "backward", "engine", "losses"),
    "train.trainer": {"admm", "errors", "graph"}
    | _train("artifacts", "data", "engine", "losses", "optimizer", "workers"),
    "train.norm_restore": {"graph", "operators"} | _train("batch_statistics", "data", "trainer"),
    "train.retrain": {"admm", "errors"} | _train("data", "trainer"),
    "train.rate_trial": {"admm"} | _train("data", "retrain", "trainer"),
    "train.preflight": {"child_process", "errors", "graph", "operators", "runtime"}
    | _train("artifacts", "backward", "data", "engine", "evaluate", "losses", "metrics", "prepare", "trainer"),
}
# What steers a run, and who calls it.
MAY_IMPORT["run"] = (
    {
        "admm",
        "bench",
        "calibrate",
        "cluster",
        "errors",
        "files",
        "graph",
        "int8",
        "interrupt",
        "latency",
        "output",
        "plan",
        "progress",
        "report",
        "rewrite",
        "runtime",
        "surgery",
    }
    | {"units"}
    | _train("data", "evaluate", "losses", "metrics", "norm_restore", "preflight", "prepare", "retrain", "trainer")
    | _train("engine", "figures", "rate_trial", "workers")
)
MAY_IMPORT["doctor"] = {"bench", "child_process", "errors", "report"} | _train("data", "engine", "losses", "trainer")
MAY_IMPORT["compress"] = {
    "bench",
    "console",
    "errors",
    "graph",
    "operators",
    "output",
    "plan",
    "progress",
    "report",
    "run",
    "surgery",
}
MAY_IMPORT["compress"] |= {"cluster", "runtime"}
MAY_IMPORT["apart"] = {"child_process", "errors", "operators"}
MAY_IMPORT["one_budget"] = {"apart", "compress", "errors", "run"}
MAY_IMPORT["elsewhere"] = {"cluster", "compress", "output", "run"}
MAY_IMPORT["estimate"] = {"admm", "apart", "compress", "console", "errors", "graph", "output", "plan"}
MAY_IMPORT["estimate"] |= {"progress", "report", "rewrite", "run", "runtime", "surgery"}
MAY_IMPORT["estimate"] |= _train("data", "evaluate", "workers")
MAY_IMPORT["ahead"] = {"compress", "console", "progress", "report", "run", "units"}
MAY_IMPORT["points"] = {"compress", "console", "errors", "files", "one_budget", "output", "plan", "progress", "report"}
MAY_IMPORT["points"] |= {"ahead", "cluster", "elsewhere", "run", "surgery", "units"}
MAY_IMPORT["sweep"] = {"apart", "errors", "plan", "points", "report", "surgery", "units"}
MAY_IMPORT["search"] = MAY_IMPORT["points"] - {"ahead", "cluster", "elsewhere", "files", "one_budget"} | {"points"}
MAY_IMPORT["search"] |= _train("data")
MAY_IMPORT["quantize"] = MAY_IMPORT["compress"] | {"compress", "files", "units"} | _train("data", "metrics")
MAY_IMPORT["own_rules"] = {"errors", "operators", "rules"} | _train("lowering", "prepare")
MAY_IMPORT["demo"] = {"compress", "errors", "plan", "progress", "report", "run"} | _train("engine")
MAY_IMPORT["__init__"] = {"compress", "errors", "graph", "own_rules", "plan", "progress", "quantize", "report", "run"}
MAY_IMPORT["__init__"] |= {"estimate", "planning", "search", "surgery", "sweep"}
MAY_IMPORT["cli"] = {"bench", "bisect", "compress", "console", "demo", "doctor", "errors", "files", "graph", "plan"}
MAY_IMPORT["cli"] |= {"estimate", "planning", "progress", "search", "sweep"}
MAY_IMPORT["cli"] |= {"interrupt", "operators", "output", "quantize", "report", "rewrite", "run", "runtime", "surgery"}
MAY_IMPORT["__main__"] = {"cli"}

#: Calls that import a module by its name.
IMPORTING_CALLS = ("__import__", "import_module", "importlib.import_module")

_FOLDERS_OF_ROOMS = ("onnxadmm", "onnxadmm.train")

#: The one door to each foreign library that has one: a file, or a whole room.
DOORS: dict[str, set[str]] = {
    "onnxruntime": {
        "runtime/session.py",
        "runtime/apart_child.py",
        "train/engine.py",
        "doctor/child.py",
        "int8/static.py",
    },
    "onnxsim": {"graph/simplify.py"},
    "PIL": {"train/data/pictures.py"},
    "pyarrow": {"train/data/parquet.py"},
    "ray": {"cluster/actors.py"},
    "typer": {"cli"},
    "jinja2": {"report/page.py"},
}


def room_of(path: Path) -> str:
    """The room a file of the package belongs to."""
    return room_of_module(".".join(path.relative_to(PACKAGE).with_suffix("").parts))


def room_of_module(name: str) -> str:
    """The room a module belongs to, by its name without the package's: two parts of it inside ``train``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "train" else parts[0]


def imported(tree: ast.AST) -> set[str]:
    """Every module an abstract syntax tree imports, by its full dotted name; relative imports begin with a dot."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # ``from onnxadmm import surgery`` imports a room as well as ``import onnxadmm.surgery`` does.
            names = [f"{module}.{alias.name}" for alias in node.names] if module in _FOLDERS_OF_ROOMS else [module]
            found.update(names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTING_CALLS and node.args:
            found.update([node.args[0].value] if isinstance(node.args[0], ast.Constant) else [])
    return found


def rooms_imported(tree: ast.AST) -> set[str]:
    """The rooms of this package that a file imports."""
    return {room_of_module(name.removeprefix("onnxadmm.")) for name in imported(tree) if name.startswith("onnxadmm.")}


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
        and ast.unparse(node.func) in IMPORTING_CALLS
        and not (node.args and isinstance(node.args[0], ast.Constant) and "onnxadmm" not in str(node.args[0].value))
    }
    # The table of operators loads the rooms that declare them, which lie above it, when it is first asked; a child
    # process loads what its parent's user has declared; the package imports a name when it is asked for, from where
    # the imports for type checkers say.
    assert hidden == {"operators/table.py", "operators/outside.py", "__init__.py"}


def test_the_table_of_operators_loads_the_rooms_that_declare() -> None:
    declaring = {room_of(path) for path, tree in trees().items() if "onnxadmm.operators.table.declare" in named(tree)}
    assert {f"onnxadmm.{room}" for room in declaring - {"operators"}} == set(DECLARING)


def named(tree: ast.AST) -> set[str]:
    """Every name a file imports from a module, with the module's."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import onnxadmm.graph.model", {"graph"}),
        ("from onnxadmm.plan.plan import Plan", {"plan"}),
        ("from onnxadmm import surgery", {"surgery"}),
        ("def late():\n    from onnxadmm.cli import main", {"cli"}),
        ("from onnxadmm.train import engine", {"train.engine"}),
        ("from onnxadmm.train.data.fit import load_data", {"train.data"}),
        ("importlib.import_module('onnxadmm.surgery')", {"surgery"}),
        ("import onnx\nfrom numpy import array", set()),
    ],
)
def test_an_import_is_seen_however_it_is_written(source: str, rooms: set[str]) -> None:
    assert rooms_imported(ast.parse(source)) == rooms
