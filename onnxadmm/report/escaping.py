"""Names of models, nodes, tensors, files and classes as text that does nothing but be read, in each medium.

A name may hold anything: a terminal's control sequences, marks that turn the direction of writing, characters that take
no room, markup. None of it gets through. JSON alone stays exact: it has escapes of its own.
"""

import re
import unicodedata
from html import escape
from typing import Final

from rich.text import Text

#: Control, format (directions and zero widths among them), lone surrogates, separators of lines and paragraphs.
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
#: What Markdown reads as markup inside a line.
_MARKS: Final = re.compile(r"([\\|*_`<>\[\]&~])")


def for_terminal(text: str) -> str:
    """Text on one line; a character that cannot be seen is written as Python does: ``"\\x1b"``, ``"\\u202e"``.

    Args:
        text: a name, or a sentence with names in it.

    Returns:
        The same, every character of which takes up its room and does nothing else.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(mark) if unicodedata.category(mark) in _UNSEEN else mark for mark in text)


def shown(text: str, style: str = "") -> Text:
    """``for_terminal`` as rich prints it: brackets in it are no markup either."""
    return Text(for_terminal(text), style=style)


def for_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line, inside a table or outside."""
    return _MARKS.sub(r"\\\1", for_terminal(" ".join(re.split(r"[ \t\r\n]+", text.strip(" \t\r\n")))))


def for_markup(text: str) -> str:
    """Text that SVG and HTML show as it is, inside an element or an attribute."""
    return escape(for_terminal(text))


def _spelled(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")
