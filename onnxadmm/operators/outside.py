"""Declarations from outside the package: rules of a user's own, and where a child process finds them again."""

import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxadmm.errors import InputError, OptionError
from onnxadmm.operators.table import declare, find, withdraw


@dataclass(frozen=True)
class Source:
    """Where an operator from outside was declared.

    Attributes:
        operator, domain: of the operator.
        function: name of its label function.
        module: name of the module, ``"__main__"`` for a script.
        file: its path; it need not exist, as for the cell of a notebook.
    """

    operator: str
    domain: str
    function: str
    module: str
    file: str


#: By domain and name of the operator.
_sources: dict[tuple[str, str], Source] = {}
_loaded: set[Path] = set()


def declare_outside(operator: str, domain: str, *, label: Callable[[Any], None], **known: Any) -> None:
    """Declare an operator for a user; the same function may declare it again, as a cell does that is run twice.

    Raises:
        OptionError: the operator has a rule already.
    """
    source = Source(operator, domain, label.__qualname__, label.__module__, label.__code__.co_filename)
    before = _sources.get((domain, operator))
    if before is not None and (before.module, before.function) == (source.module, source.function):
        withdraw(operator, domain=domain)
    elif find(domain, operator).label is not None:
        where = "one of this package" if before is None else f"one of {before.file}"
        raise OptionError(
            f"rule of {domain or 'ai.onnx'}::{operator}",
            expected="an operator without a rule",
            found=where,
            way_out="leave it out, or declare it under another domain",
        )
    declare(operator, domain=domain, label=label, **known)
    _sources[domain, operator] = source


def sources() -> tuple[Source, ...]:
    """Where rules from outside were declared, in order, for ``load_sources`` of a child process.

    Raises:
        OptionError: one was declared where no other process can read it.
    """
    for source in _sources.values():
        if not Path(source.file).is_file():
            raise OptionError(
                "rules of one's own",
                expected="rules in a file, which the training check in a process of its own can load",
                found=source.file,
                way_out="write them into a .py file and import it, or give it with --rules",
            )
    return tuple(_sources.values())


def rule_files() -> tuple[str, ...]:
    """Return the sha256 of each file that declared a rule, in order of the digests."""
    files = {Path(source.file) for source in _sources.values()}
    return tuple(sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()))


def load_sources(wanted: Sequence[Source]) -> None:
    """Declare again, in a child process, what its parent declared.

    A script runs under another name than ``"__main__"``, as with ``multiprocessing``.

    Raises:
        OptionError: an operator is not declared when its module is loaded.
    """
    for source in wanted:
        known = source.module != "__main__" and importlib.util.find_spec(source.module) is not None
        if known:
            importlib.import_module(source.module)
        else:
            load_rules(source.file)
        if (source.domain, source.operator) not in _sources:
            raise OptionError(
                f"rule of {source.domain or 'ai.onnx'}::{source.operator}",
                expected=f"a declaration that stands at the top level of {source.file}",
                found="none when the file is loaded, which the training check does in a process of its own",
                way_out="take it out of the function or the condition around it",
            )


def load_rules(paths: "Sequence[str | Path] | str | Path") -> None:
    """Run Python files that declare rules with ``onnxadmm.rule``; a file that was loaded before is left alone.

    Raises:
        InputError: a file is missing, or fails.
    """
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        file = Path(path).resolve()
        if file in _loaded:
            continue
        name = f"onnxadmm_rules_{len(_loaded)}_{file.stem}"
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None or not file.is_file():
            raise InputError(
                f"--rules {path}", expected="a Python file", found="none", way_out="check the path, which ends in .py"
            )
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except InputError:
            raise
        except Exception as error:  # whatever a user's file raises
            raise InputError(
                f"--rules {path}",
                expected="a file that declares rules with onnxadmm.rule",
                found=f"{type(error).__name__}: {error}",
                way_out="run it alone with Python to see where it fails",
            ) from error
        _loaded.add(file)
