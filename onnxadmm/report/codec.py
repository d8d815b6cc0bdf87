"""Frozen dataclasses <-> JSON, strictly: what is read has exactly the fields and types that are written.

Numbers JSON has no word for are written as the strings ``"inf"``, ``"-inf"`` and ``"nan"``. Keys stand in the order of
the fields, mappings in the order of their keys, so equal values give equal bytes.
"""

import json
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NOT_FINITE: Final = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_WORDS: Final = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


class MismatchError(ValueError):
    """A JSON value is not what a type asks for.

    Attributes:
        where: path to the value, e.g. ``before.latency[0].median_ms``; empty for the document itself.
        expected: what the type asks for, in words.
        found: what was there.
    """

    def __init__(self, where: str, *, expected: str, found: str) -> None:
        self.where = where
        self.expected = expected
        self.found = found
        super().__init__(f"{where or 'the document'}: expected {expected}, found {found}")


def encode(value: object) -> Any:
    """Turn a value of the types this module reads into what ``json`` writes.

    Raises:
        TypeError: a value of another type (a defect).
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(value[key]) for key in sorted(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"no JSON for {type(value).__name__}")


def decode(kind: type[T], document: object) -> T:
    """Turn what ``json`` read into a ``kind``.

    Raises:
        MismatchError: a field is missing, unknown, or of another type, or the class itself refuses the value.
    """
    value: T = _decode(kind, document, "")
    return value


def dumps(document: object, *, indent: int | None = None) -> str:
    """JSON text in ASCII, without numbers JSON does not have; ends without a newline."""
    return json.dumps(document, indent=indent, allow_nan=False)


def _decode(kind: Any, document: object, where: str) -> Any:
    origin = get_origin(kind)
    if origin is Literal:
        if document in get_args(kind) and isinstance(document, str):
            return document
        raise MismatchError(where, expected=f"one of {', '.join(map(repr, get_args(kind)))}", found=_found(document))
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), document, where)
    if origin is tuple:
        if not isinstance(document, list):
            raise MismatchError(where, expected="a list", found=_found(document))
        return tuple(_decode(get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(document))
    if origin is Mapping:
        if not isinstance(document, dict):
            raise MismatchError(where, expected="an object", found=_found(document))
        return {key: _decode(get_args(kind)[1], item, f"{where}[{key!r}]") for key, item in document.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, document, where)
    return _decode_scalar(kind, document, where)


def _decode_scalar(kind: type, document: object, where: str) -> object:
    if kind is float:
        if isinstance(document, str) and document in _NOT_FINITE:
            return _NOT_FINITE[document]
        if isinstance(document, (int, float)) and not isinstance(document, bool):
            return float(document)
    elif type(document) is kind:
        return document
    raise MismatchError(where, expected=_WORDS.get(kind, kind.__name__), found=_found(document))


def _decode_union(kinds: tuple[Any, ...], document: object, where: str) -> object:
    # A number stays what JSON says it is where the union has both kinds of number.
    for kind in sorted(kinds, key=lambda kind: kind is float):
        if kind is float and isinstance(document, str) and str in kinds:
            continue
        try:
            return _decode(kind, document, where)
        except MismatchError:
            if type(document) is dict and is_dataclass(kind):
                raise
    words = [_WORDS.get(kind, "an object") for kind in kinds]
    raise MismatchError(where, expected=" or ".join(words), found=_found(document))


def _decode_dataclass(kind: type, document: object, where: str) -> object:
    if not isinstance(document, dict):
        raise MismatchError(where, expected="an object", found=_found(document))
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    prefix = f"{where}." if where else ""
    for name in names:
        if name not in document:
            raise MismatchError(prefix + name, expected="this field", found="nothing")
    for key in document:
        if key not in names:
            raise MismatchError(prefix + key, expected="no field of this name", found=_found(document[key]))
    values = {name: _decode(hints[name], document[name], prefix + name) for name in names}
    try:
        return kind(**values)
    except ValueError as error:
        raise MismatchError(where, expected="values that fit together", found=str(error)) from error


def _found(document: object) -> str:
    text = json.dumps(document)
    return text if len(text) <= 60 else text[:57] + "..."
