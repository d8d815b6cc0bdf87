"""Reports as files: ``report.json`` and ``history.jsonl`` beside it, there and back again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from onnxadmm.errors import InputError
from onnxadmm.graph.weights import refuse_special
from onnxadmm.progress import Iteration
from onnxadmm.report.codec import MismatchError, decode, encode
from onnxadmm.report.report import Report

SCHEMA: Final = "onnxadmm.report/2"
#: It holds the iterations of a run itself, and says nothing of layers.
_FIRST: Final = "onnxadmm.report/1"

NAME: Final = "report.json"
HISTORY_NAME: Final = "history.jsonl"


def to_document(report: Report) -> dict[str, Any]:
    """The report as JSON objects, its schema first; its iterations stand in ``history.jsonl`` and not here."""
    return {"schema": SCHEMA, **{name: value for name, value in encode(report).items() if name != "history"}}


def from_document(document: object, *, source: str, history: Sequence[Iteration] = ()) -> Report:
    """Read a report from JSON objects, of this schema or the first one.

    Args:
        document: what ``json`` read.
        source: how messages call it, e.g. its path.
        history: the iterations of the run; a document of the first schema has its own.

    Raises:
        InputError: another schema, or a field that is missing, unknown or of another type.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or schema not in (SCHEMA, _FIRST):
        raise InputError(
            source,
            expected=f"a report of schema {SCHEMA!r}",
            found=f"schema {schema!r}" if schema is not None else "a document without a schema",
            way_out="give a report.json of this version, or make it again",
        )
    content = {key: value for key, value in document.items() if key != "schema"}
    try:
        if schema == _FIRST:
            return decode(Report, _grown(content))
        if "history" in content:
            raise MismatchError("history", expected="no field of this name", found="one")
        # What came later, and is missing in reports of earlier versions.
        content = {"variants": [], "forecast": [], **content}
        return replace(decode(Report, {**content, "history": []}), history=tuple(history))
    except MismatchError as error:
        raise InputError(
            f"{source}, {error.where or 'the document'}",
            expected=error.expected,
            found=error.found,
            way_out="give the file as it was written, or make it again",
        ) from error


def _grown(content: dict[str, Any]) -> dict[str, Any]:
    """Give a document of the first schema the fields that came later, empty."""
    groups = content.get("groups")
    if isinstance(groups, list):
        groups = [{**group, "feeds": []} if isinstance(group, dict) else group for group in groups]
        content = {**content, "groups": groups}
    later: dict[str, Any] = {"profile": None, "connections": None}
    later |= {name: [] for name in ("inputs", "outputs", "layers", "variants", "forecast")}
    return {**content, **later}


def read_report(path: str | Path) -> Report:
    """Read ``report.json``, the one of a run's folder where a folder is given, with ``history.jsonl`` beside it.

    Raises:
        InputError: a file cannot be read, is not JSON, or is not a report or its history.
    """
    if Path(path).is_dir():
        file = Path(path) / NAME
        if not file.exists():
            unfinished = (Path(path) / "unfinished").exists()
            raise InputError(
                str(path),
                expected=f"a folder with {NAME}",
                found="an unfinished run" if unfinished else "none",
                way_out="go on with --resume" if unfinished else "give the --out folder of a run",
            )
        path = file
    file = Path(path)
    try:
        document = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise InputError(
            str(path),
            expected="JSON",
            found=f"something else ({error})",
            way_out="give the report.json of an output folder",
        ) from error
    history = read_history(file.with_name(HISTORY_NAME)) if file.with_name(HISTORY_NAME).exists() else ()
    return from_document(document, source=str(path), history=history)


def read_history(path: Path) -> tuple[Iteration, ...]:
    """Read the iterations in a ``history.jsonl``.

    Raises:
        InputError: the file cannot be read, or a line of it is no iteration.
    """
    rows: list[Iteration] = []
    try:
        for line in _text(path).splitlines():
            rows.append(decode(Iteration, json.loads(line)))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}, line {len(rows) + 1}",
            expected="an iteration of a run",
            found=str(error),
            way_out="give the folder as the run has left it",
        ) from error
    return tuple(rows)


def _text(path: Path) -> str:
    """What a file holds.

    Raises:
        InputError: it cannot be read.
        ValueError: it is no text in UTF-8.
    """
    try:
        refuse_special(path)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise InputError(str(path), expected="a readable file", found=reason, way_out="check the path") from error
