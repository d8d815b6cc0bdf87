"""Equations of Einsum are read as numpy reads them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxadmm.operators.equation import parse_equation


@pytest.mark.parametrize(
    ("text", "ranks", "operands", "result"),
    [
        ("bij, bjk -> bik", (3, 3), ["bij", "bjk"], "bik"),
        ("bij,bjk", (3, 3), ["bij", "bjk"], "ik"),
        ("Za,aB", (2, 2), ["Za", "aB"], "BZ"),
        ("...ij,jk->...ik", (4, 2), ["01ij", "jk"], "01ik"),
        ("...i,...i", (2, 3), ["1i", "01i"], "01"),
        ("a...,...->...a", (1, 2), ["a", "01"], "01a"),
        ("...i->i", (3,), ["01i"], "i"),
        (",a", (0, 1), ["", "a"], "a"),
    ],
)
def test_axes_are_named(text: str, ranks: tuple[int, ...], operands: list[str], result: str) -> None:
    found = parse_equation(text, ranks)
    assert found is not None
    assert found.operands == tuple(tuple(names) for names in operands)
    assert found.result == tuple(result)
    assert not found.takes_diagonals


@pytest.mark.parametrize(("text", "ranks"), [("ij,jk", (2,)), ("ij->i", (3,)), ("...ij", (1,)), ("ij", (1,))])
def test_operands_that_do_not_fit_are_told(text: str, ranks: tuple[int, ...]) -> None:
    assert parse_equation(text, ranks) is None


def test_diagonals_are_told() -> None:
    for text in ("ii->i", "i->ii"):
        found = parse_equation(text, (text.index("-"),))
        assert found is not None
        assert found.takes_diagonals


@given(st.data())
def test_names_mean_what_numpy_takes_the_text_for(data: st.DataObject) -> None:
    sizes = dict(zip("abAB", (2, 3, 4, 5), strict=True))
    outer = data.draw(st.lists(st.integers(1, 3), max_size=2), label="lengths of the ellipsis")
    texts, arrays = [], []
    for seed in range(data.draw(st.integers(1, 3), label="operands")):
        letters = data.draw(st.permutations("abAB").map(lambda found: found[:2]), label="letters")
        cut = data.draw(st.integers(0, len(outer)), label="broadcast")
        place = data.draw(st.integers(0, 2), label="place")
        texts.append("".join(letters[:place]) + "..." + "".join(letters[place:]))
        shape = [*(sizes[x] for x in letters[:place]), *outer[cut:], *(sizes[x] for x in letters[place:])]
        arrays.append(np.random.default_rng(seed).standard_normal(shape))
    text = ",".join(texts)
    if data.draw(st.booleans(), label="arrow"):
        used = sorted({letter for letter in text if letter.isalpha()})
        text += "->" + "".join(data.draw(st.permutations(["...", *used[:1]]), label="result"))
    found = parse_equation(text, [array.ndim for array in arrays])
    assert found is not None
    numbers = {name: number for number, name in enumerate(dict.fromkeys(n for axes in found.operands for n in axes))}
    parts = [
        part for pair in zip(arrays, found.operands, strict=True) for part in (pair[0], [numbers[n] for n in pair[1]])
    ]
    np.testing.assert_allclose(
        np.einsum(*parts, [numbers[n] for n in found.result]), np.einsum(text, *arrays), rtol=1e-12
    )
