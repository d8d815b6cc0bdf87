"""Characters that cannot be seen, spelled out: what a terminal would act upon does nothing but be read."""

import unicodedata
from typing import Final

#: Control, format (directions and zero widths among them), lone surrogates, separators of lines and paragraphs.
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")


def spelled_out(text: str) -> str:
    """Return a text on one line, with what cannot be seen written as Python does: ``"\\x1b"``, ``"\\u202e"``.

    Args:
        text: a name, or a sentence with names in it.

    Returns:
        The same, every character of which takes up its room and does nothing else.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(mark) if unicodedata.category(mark) in _UNSEEN else mark for mark in text)


def _spelled(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")
