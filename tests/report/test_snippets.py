"""Lines that run a model: they are in their languages, whatever the inputs are called."""

import ast
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from onnxadmm.report.layers import TensorLine
from onnxadmm.report.snippets import cpp_lines, further_commands, javascript_lines, python_lines, variable

HOSTILE = [
    "image",
    "a b",
    'quo"te',
    "back\\slash",
    "??/trigraph",
    "new\nline",
    "caf\u00e9",
    "\u202ex",
    "class",
    "1st",
    "",
]
LINES = [TensorLine(name, "float32", ("N", 3)) for name in HOSTILE]


def test_the_python_is_python_and_feeds_every_input() -> None:
    (_, _, run) = tree = ast.parse("\n".join(python_lines("out/my model.onnx", HOSTILE))).body
    assert len(tree) == 3
    feeds = next(node for node in ast.walk(run) if isinstance(node, ast.Dict))
    assert [key.value for key in feeds.keys if isinstance(key, ast.Constant)] == HOSTILE


def test_the_javascript_names_every_input_and_its_type() -> None:
    lines = javascript_lines(
        "model.onnx", [*LINES, TensorLine("ids", "int64", (1, 7)), TensorLine("odd", "bfloat16", ())]
    )
    names = re.findall(r'("(?:[^"\\]|\\.)*"): new ort\.Tensor', lines[-1])
    assert [json.loads(name) for name in names] == [*HOSTILE, "ids", "odd"]
    assert 'new ort.Tensor("int64", ids, [1, 7])' in lines[-1]
    assert 'new ort.Tensor("float32", odd, [])' in lines[-1]
    assert all(line.isascii() for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_strings_of_the_cpp_hold_the_names_to_the_byte(tmp_path: Path) -> None:
    (_, names, _) = cpp_lines("model.onnx", LINES, LINES[:1])
    program = f'#include <cstdio>\nint main() {{ {names} for (auto each : inputs) std::printf("%s%c", each, 0); }}\n'
    (tmp_path / "names.cc").write_text(program, encoding="ascii")
    binary = tmp_path / "names"
    subprocess.run(["g++", "-std=c++11", "-trigraphs", tmp_path / "names.cc", "-o", binary], check=True)
    printed = subprocess.run([binary], capture_output=True, check=True).stdout
    assert printed.decode().split("\0")[:-1] == HOSTILE


@pytest.mark.parametrize(
    ("name", "word"), [("x", "x"), ("a.b/c", "a_b_c"), ("class", "input_class"), ("1st", "input_1st"), ("", "input_")]
)
def test_a_variable_is_called_after_the_input(name: str, word: str) -> None:
    assert variable(name) == word


def test_commands_quote_what_a_shell_would_read() -> None:
    verify, bench, report = further_commands("my model; rm.onnx", "out dir", "a.so, b.so")
    assert shlex.split(verify)[2:5] == ["my model; rm.onnx", "out dir/model.onnx", "out dir/plan.json"]
    assert shlex.split(bench)[-4:] == ["--custom-ops", "a.so", "--custom-ops", "b.so"]
    assert shlex.split(report) == ["onnxadmm", "report", "out dir", "--open"]
