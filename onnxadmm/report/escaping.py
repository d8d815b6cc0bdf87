"""Names of models, nodes, tensors, files and classes as text that does nothing but be read, in each medium.

A name may hold anything: a terminal's control sequences, marks that turn the direction of writing, characters that take
no room, markup. None of it gets through. JSON alone stays exact: it has escapes of its own.
"""

import re
from html import escape
from typing import Final

from rich.text import Text

from onnxadmm.plain_text import spelled_out

#: What Markdown reads as markup inside a line.
_MARKS: Final = re.compile(r"([\\|*_`<>\[\]&~])")


def for_terminal(text: str) -> str:
    """Text on one line, with a character that cannot be seen spelled out."""
    return spelled_out(text)


def shown(text: str, style: str = "") -> Text:
    """``for_terminal`` as rich prints it: brackets in it are no markup either."""
    return Text(for_terminal(text), style=style)


def for_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line, inside a table or outside."""
    return _MARKS.sub(r"\\\1", for_terminal(" ".join(re.split(r"[ \t\r\n]+", text.strip(" \t\r\n")))))


def for_markup(text: str) -> str:
    """Text that SVG and HTML show as it is, inside an element or an attribute."""
    return escape(for_terminal(text))
