"""One spelling for every option: error messages say it as the command line does, Python has it with underscores."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import typer

import onnxadmm as oa
from onnxadmm.cli.app import app

PACKAGE = Path(oa.__file__).parent

#: What only the command line has, or spells otherwise for a reason: files, output, one of several, the opposite.
OF_THE_COMMAND_LINE = {
    *("--bisect", "--debug", "--help", "--html", "--json", "--open", "--rules", "--svg", "--verify", "--no-verify"),
    *("--batch", "--dense", "--dry-run", "--input", "--input-shape", "--no-refit", "--no-simplify", "--simplify"),
    *("--connection-target", "--lr", "--retrain-lr", "--target"),
    *("--speedup", "--no-bench", "--quiet", "--install-completion", "--show-completion", "--version", "--wide"),
}


def options() -> set[str]:
    """Every option of every verb."""
    group = typer.main.get_command(app)
    parameters = [field for verb in (group, *group.commands.values()) for field in verb.params]  # type: ignore[attr-defined]
    return {name for field in parameters for name in (*field.opts, *field.secondary_opts) if name.startswith("--")}


def in_python() -> set[str]:
    """The parameters of the public functions, and the fields of what is given to them."""
    functions = (oa.bench, oa.compress, oa.estimate, oa.find_groups, oa.quantize, oa.rank, oa.save, oa.sweep, oa.verify)
    names = {name for function in functions for name in inspect.signature(function).parameters}
    kinds = (oa.Budget, oa.CalibrationOptions, oa.Limits, oa.Preprocessing, oa.Recipe)
    return names | {field.name for kind in kinds for field in fields(kind)}


def texts() -> Iterator[tuple[str, str]]:
    """File and text of every string of the package that is no docstring."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
                yield str(path.relative_to(PACKAGE)), node.value


def things() -> Iterator[tuple[str, str]]:
    """File and subject of every OptionError whose subject is written out."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "OptionError" and node.args:
                (thing, *_) = node.args
                if isinstance(thing, ast.Constant):
                    yield path.name, str(thing.value)


def test_options_have_the_same_name_in_python() -> None:
    named = {option.removeprefix("--").replace("-", "_") for option in options() - OF_THE_COMMAND_LINE}
    assert named <= in_python()
    assert options() >= OF_THE_COMMAND_LINE - {"--help"}


def test_options_named_in_messages_exist() -> None:
    foreign = {"--force-reinstall"}
    found = {(file, option) for file, text in texts() for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)}
    assert len(found) > 40
    assert not {(file, option) for file, option in found if option not in options() | foreign | {"--help"}}


def test_messages_name_no_parameter_of_python() -> None:
    found = {(file, word) for file, text in texts() for word in re.findall(r"(?<![\w-])([a-z_]+)=[A-Z]{2,}", text)}
    assert not found


def test_errors_spell_an_option_as_the_command_line_does() -> None:
    spelled = {option.removeprefix("--").replace("-", "_"): option for option in options()}
    found = list(things())
    assert len(found) > 30
    assert not {(file, thing) for file, thing in found if thing.replace(" ", "_").lower() in spelled}
