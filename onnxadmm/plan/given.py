"""What a caller gives in place of a budget, limits and the like: one of them, or a mapping of its fields."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TypeVar

from onnxadmm.errors import OptionError
from onnxadmm.plan.budget import Budget

T = TypeVar("T")


def given(kind: type[T], value: object, *, thing: str, way_out: str) -> T:
    """Return a ``kind``, made from a mapping where one was given.

    Args:
        kind: a dataclass.
        value: one of these, or a mapping of its fields.
        thing: what a message is about, e.g. ``"the budget"``.
        way_out: what to write instead, for a message.

    Returns:
        The value, or what its fields make.

    Raises:
        OptionError: it is something else, a field is unknown, or one has a value that the dataclass refuses.
    """
    if isinstance(value, kind):
        return value
    assert is_dataclass(kind)
    names = [item.name for item in fields(kind)]
    expected = f"onnxadmm.{kind.__name__}, or a dict of {', '.join(names)}"
    if not isinstance(value, Mapping):
        raise OptionError(thing, expected=expected, found=_brief(value), way_out=way_out)
    unknown = [key for key in value if key not in names]
    if unknown:
        raise OptionError(thing, expected=expected, found=f"the key {unknown[0]!r}", way_out=way_out)
    try:
        return kind(**value)
    except TypeError as error:
        raise OptionError(
            thing, expected=f"values that onnxadmm.{kind.__name__} takes", found=str(error), way_out=way_out
        ) from error


def given_or_usual(kind: type[T], value: object, thing: str, example: str) -> T:
    """Return a ``kind`` as ``given`` does, with its defaults where nothing was given.

    Args:
        example: a call that makes one, for a message.
    """
    return kind() if value is None else given(kind, value, thing=thing, way_out=f"write e.g. onnxadmm.{example}")


def given_budget(value: object) -> Budget | None:
    """Return the budget, None where none was given.

    Raises:
        OptionError: it is neither a budget nor a mapping of its fields; a bare number does not say what is counted.
    """
    if value is None:
        return None
    way_out = "say what is counted: onnxadmm.Budget(params=0.3) or onnxadmm.Budget(macs=0.3)"
    return given(Budget, value, thing="the budget", way_out=way_out)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
