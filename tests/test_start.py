"""How fast commands and the package start, and what they leave alone until it is needed."""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

import pytest

import onnxadmm as oa
from onnxadmm.demo import DemoFiles

PACKAGE = Path(oa.__file__).parent

if sys.platform != "win32":
    import resource


def times_numpy(*words: object, variables: Mapping[str, str] = MappingProxyType({})) -> float:
    """CPU time of a Python process over that of importing numpy, each the best of three in turns.

    So what others do on the machine counts for little, and a clock that changes for nothing.
    """
    turns = [(cpu_seconds("-c", "import numpy"), cpu_seconds(*words, variables=variables)) for _ in range(3)]
    numpy, command = map(min, zip(*turns, strict=True))
    return command / numpy


def cpu_seconds(*words: object, variables: Mapping[str, str] = MappingProxyType({})) -> float:
    """CPU time of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def said_by(code: str, *words: object, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a fresh Python prints last."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **variables})
    return done.stdout.splitlines()[-1]


LOADED = "[name for name in ('numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'sympy') if name in sys.modules]"


@pytest.mark.parametrize("words", [("--help",), ("compress", "--help"), ("--version",)])
def test_help_waits_for_no_library(words: tuple[str, ...]) -> None:
    code = f"import sys; from onnxadmm.cli import main; main(sys.argv[1:]); print({LOADED})"
    assert said_by(code, *words) == "[]"


def test_importing_the_package_waits_for_no_library() -> None:
    assert said_by(f"import sys, onnxadmm; print({LOADED})") == "[]"


@pytest.mark.slow
def test_finding_groups_waits_neither_for_sympy_nor_for_onnxruntime(digits: DemoFiles) -> None:
    code = "import sys, onnxadmm; onnxadmm.find_groups(sys.argv[1]); print({'sympy', 'onnxruntime'} & set(sys.modules))"
    assert said_by(code, digits.model) == "set()"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no CPU time of children there")
def test_commands_start_fast(digits: DemoFiles) -> None:
    # 0.3 s and 1 s on a machine that imports numpy in 0.08 to 0.11 s; multiples of that fit slow machines too.
    assert times_numpy("-m", "onnxadmm", "--help") < 3
    assert times_numpy("-m", "onnxadmm", "--version") < 3
    assert times_numpy("-m", "onnxadmm", "inspect", digits.model) < 9
    command = "import sys; from onnxadmm.cli import main; sys.argv = ['onnxadmm']; sys.exit(main())"
    asked = {"_ONNXADMM_COMPLETE": "complete_bash", "COMP_WORDS": "onnxadmm compress --para", "COMP_CWORD": "2"}
    assert "--params" in said_by(command, variables=asked)
    assert times_numpy("-c", command, variables=asked) < 4


# -- sympy, which onnx_ir imports and hardly ever needs ------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        # onnx_ir computes with it all the same
        "dim = onnx_ir.SymbolicDim('n'); print((dim * 2 + 1).evaluate({'n': 4}), 'sympy' in sys.modules)",
        # a formula that is given, before anything of sympy was asked for
        "import sympy; dim = onnx_ir.SymbolicDim(sympy.Symbol('n') + 5); print(dim.evaluate({'n': 4}), True)",
        # whoever imports it gets the module itself, and its parts
        "import sympy.core; print(9 if type(sympy) is type(sys) else 0, hasattr(sympy, 'Symbol'))",
    ],
)
def test_sympy_is_there_when_it_is_needed(code: str) -> None:
    before = "import sys, onnxadmm.graph, onnx_ir; assert 'sympy' not in sys.modules; "
    assert said_by(before + code) == "9 True"


def test_whatever_imports_onnx_ir_first_imports_it_lightly() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        if (
            "import onnx_ir" in path.read_text()
            and path.name != "light.py"
            and room not in ("bisect.py", "train", "run")
        ):
            assert "import onnxadmm.graph.light" in (PACKAGE / room / "__init__.py").read_text(), path


# -- the names of the package --------------------------------------------------------------------------------


def test_type_checkers_see_the_names_where_they_are() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    checked = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in ast.walk(checked[0]) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen == oa._HOME_OF
    assert set(oa.__all__) == set(seen)


def test_every_public_name_is_there_and_no_module_takes_its_place() -> None:
    import onnxadmm.bench.latency
    import onnxadmm.compress  # noqa: F401

    for name in oa.__all__:
        assert not isinstance(getattr(oa, name), ModuleType), name
        assert name in dir(oa)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        oa.nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bench", "compress"])
def test_functions_keep_their_names_whichever_is_imported_first(name: str) -> None:
    assert said_by(f"import onnxadmm.{name}; import onnxadmm; print(callable(onnxadmm.{name}))") == "True"
