"""Pages of the documentation, followed as a reader does: every block of shell and Python, in a folder of its own."""

import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_command

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: Languages of blocks that show something and do nothing.
SHOWN = {"text", "json"}


@dataclass(frozen=True)
class PageBlock:
    """A block of code of a page."""

    language: str
    text: str

    def commands(self) -> list[list[str]]:
        """The words of each line of a block of shell; lines that end in a backslash go on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: Path) -> list[PageBlock]:
    """The blocks of a page, in their order."""
    found = [PageBlock(language, text) for language, text in _FENCE.findall(page.read_text(encoding="utf-8"))]
    assert {block.language for block in found} <= SHOWN | {"sh", "python"}, page
    return found


def follow_page(
    page: Path, root: Path, monkeypatch: pytest.MonkeyPatch, *, left_out: Collection[str] = ()
) -> dict[str, Any]:
    """Do what a page says in ``out/cookbook`` of a folder that has the samples.

    Args:
        page: Markdown.
        root: an empty folder.
        monkeypatch: changes the folder for as long as the test runs.
        left_out: programs that are not run.

    Returns:
        The names that its Python has defined, and ``printed``: what all of it wrote.
    """
    shutil.copytree(ROOT / "samples", root / "samples", ignore=shutil.ignore_patterns("__pycache__"))
    here = root / "out" / "cookbook"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    names: dict[str, Any] = {"__name__": page.stem}
    printed = io.StringIO()
    for block in blocks_of(page):
        if block.language == "python":
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, str(page), "exec"), names)
        elif block.language == "sh":
            for words in block.commands():
                if words[0] not in left_out:
                    printed.write(_run(words, monkeypatch))
    return {**names, "printed": printed.getvalue()}


def _run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run one line: the command, or a script by Python."""
    if words[0] == "onnxadmm":
        ran = run_command(*words[1:])
        assert ran.status == 0, f"{shlex.join(words)}\n{ran.stdout}{ran.stderr}"
        return ran.stdout
    assert words[0] == "python", f"{shlex.join(words)} is not known to the tests"
    monkeypatch.setattr(sys, "argv", words[1:])
    status: object = None
    try:
        runpy.run_path(os.fspath(words[1]), run_name="__main__")
    except SystemExit as end:
        status = end.code
    assert not status, f"{shlex.join(words)} ended with {status}"
    return ""
