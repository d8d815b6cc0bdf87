"""Text that does nothing but be read, whatever it holds."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from onnxadmm.report.escaping import for_markdown, for_markup, for_terminal

#: Colour, title of the window, C1 control, direction, isolate, no width, byte order, ends of lines, lone surrogate.
HOSTILE = "\x1b[31m\x1b]0;x\x07\x9b2J\u202ecod\u2066\u2069\u200b\ufeff\u2028\x85\r\n\t\x7f\ud800\U000e0041"


def unseen(text: str) -> set[str]:
    """Characters of a text, but for spaces and ends of lines, that nobody sees."""
    return {mark for mark in text if unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}


def test_plain_names_stay_as_they_are() -> None:
    for name in ("conv1.weight", "/layer/Conv_3", "größe", "层 1", "a[b]", "C:\\model.onnx"):
        assert for_terminal(name) == name


def test_what_cannot_be_seen_is_spelled_out() -> None:
    assert for_terminal("a\x1b[31mb\u202ec\u200d\x9b\n") == r"a\x1b[31mb\u202ec\u200d\x9b\n"
    assert not unseen(for_terminal(HOSTILE))
    assert for_terminal(for_terminal(HOSTILE)) == for_terminal(HOSTILE)


@given(st.text())
def test_no_text_gets_through_unseen(text: str) -> None:
    for escaped in (for_terminal(text), for_markdown(text), for_markup(text)):
        assert not unseen(escaped)
        assert "\n" not in escaped
        escaped.encode("utf-8")


@given(st.text())
def test_markup_is_text_in_every_medium(text: str) -> None:
    assert not re.search(r"[<>\"']", for_markup(text))
    assert not re.search(r"(?<!\\)(?:\\\\)*[|*_`<>\[\]&~]", re.sub(r"\\[|*_`<>\[\]&~\\]", "", for_markdown(text)))
