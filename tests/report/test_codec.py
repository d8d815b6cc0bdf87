"""Strict JSON: what is refused, and that numbers keep their kind."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from onnxadmm.report.codec import MismatchError, decode, dumps, encode


@dataclass(frozen=True)
class Inner:
    """A pair that refuses nonsense."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low above high")


@dataclass(frozen=True)
class Outer:
    """One of every kind."""

    name: str
    share: float
    many: tuple[Inner, ...]
    table: Mapping[str, int]
    maybe: Inner | None
    word: Literal["left", "right"]
    any_scalar: str | int | float | bool | None


GOOD = Outer("a", 0.5, (Inner(1, 2),), {"z": 1, "a": 2}, None, "left", True)


def document() -> dict[str, object]:
    read: dict[str, object] = json.loads(dumps(encode(GOOD)))
    return read


def test_a_value_comes_back_equal() -> None:
    assert decode(Outer, document()) == GOOD


@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_infinity_survives_in_valid_json(number: float) -> None:
    text = dumps(encode(Outer("a", number, (), {}, None, "left", None)))
    assert "Infinity" not in text
    assert decode(Outer, json.loads(text)).share == number


def test_nan_survives() -> None:
    text = dumps(encode(Outer("a", math.nan, (), {}, None, "left", None)))
    assert math.isnan(decode(Outer, json.loads(text)).share)


@pytest.mark.parametrize("scalar", [1, 1.0, True, "1", "inf", None, 0.1, 2**80])
def test_scalars_of_a_union_keep_their_kind(scalar: str | int | float | bool | None) -> None:
    read = decode(Outer, json.loads(dumps(encode(Outer("a", 1.0, (), {}, None, "left", scalar))))).any_scalar
    assert read == scalar
    assert type(read) is type(scalar)


def test_keys_of_mappings_are_ordered() -> None:
    assert list(encode({"b": 1, "a": 2})) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "where", "expected"),
    [
        ({"name": 1}, "name", "a text"),
        ({"share": True}, "share", "a number"),
        ({"share": "0.5"}, "share", "a number"),
        ({"many": {}}, "many", "a list"),
        ({"many": [{"low": 1}]}, "many[0].high", "this field"),
        ({"many": [{"low": 1, "high": 2, "odd": 3}]}, "many[0].odd", "no field of this name"),
        ({"many": [{"low": 1.5, "high": 2}]}, "many[0].low", "a whole number"),
        ({"many": [{"low": True, "high": 2}]}, "many[0].low", "a whole number"),
        ({"many": [{"low": 3, "high": 2}]}, "many[0]", "values that fit together"),
        ({"table": {"a": "b"}}, "table['a']", "a whole number"),
        ({"table": []}, "table", "an object"),
        ({"maybe": 3}, "maybe", "an object or null"),
        ({"maybe": {"low": "x", "high": 2}}, "maybe.low", "a whole number"),
        ({"word": "up"}, "word", "one of 'left', 'right'"),
        ({"word": []}, "word", "one of 'left', 'right'"),
        ({"any_scalar": []}, "any_scalar", "a text or a whole number or a number or true or false or null"),
    ],
)
def test_another_type_is_refused_with_its_place(change: dict[str, object], where: str, expected: str) -> None:
    with pytest.raises(MismatchError) as caught:
        decode(Outer, document() | change)
    assert caught.value.where == where
    assert caught.value.expected == expected


def test_a_document_that_is_no_object_is_refused() -> None:
    with pytest.raises(MismatchError, match="the document: expected an object, found"):
        decode(Outer, [1, 2])


def test_a_type_that_has_no_json_is_a_defect() -> None:
    with pytest.raises(TypeError, match="no JSON for set"):
        encode({"a": {1, 2}})
