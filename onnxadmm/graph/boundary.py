"""Where whatever goes wrong with a model while it is analysed becomes one sentence.

Files come from anywhere, and no list of checks foresees all that may be wrong in one. So what the steps of an analysis
raise, other than errors of this package, ends at its boundary as an ``InputError`` that says what happened and at which
node; the original stands behind it as its cause.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import onnx_ir

from onnxadmm.errors import ModelFileError, OnnxAdmmError
from onnxadmm.graph.model import Model

#: How a note on an exception begins that names the node at which it was raised.
_AT: Final = "at the node "


def name_node(error: Exception, node: onnx_ir.Node) -> None:
    """Note on an exception at which node it was raised; the innermost note counts."""
    name = node.name or next((output.name for output in node.outputs if output.name), "unnamed")
    error.add_note(f"{_AT}{node.op_type} ({name})")


@contextmanager
def analysing(model: Model, what: str) -> Iterator[None]:
    """Turn every foreign exception into one sentence on the model.

    Args:
        model: what is analysed.
        what: is done with it, for the sentence: ``"the search for units"``.

    Raises:
        ModelFileError: something else than an error of this package was raised inside.
    """
    try:
        yield
    except OnnxAdmmError:
        raise
    except Exception as error:
        thing = "the model given in memory" if model.path is None else str(model.path)
        raise ModelFileError(
            thing,
            expected=f"a graph that {what} can follow",
            found=_described(error),
            way_out="check it with onnx.checker, and if it is right report it: --debug shows where",
        ) from error


def _described(error: Exception) -> str:
    """What was raised, in a line that ends without a full stop, and the node at which it was."""
    root: BaseException = error
    while root.__cause__ is not None:  # what was raised first says most
        root = root.__cause__
    words = " ".join(str(root).split())[:160].rstrip(". ")
    kind = "too deep a nesting" if isinstance(root, RecursionError) else type(root).__name__
    notes = [
        note for note in (*getattr(error, "__notes__", ()), *getattr(root, "__notes__", ())) if note.startswith(_AT)
    ]
    return kind + (f" ({words})" if words and kind == type(root).__name__ else "") + (f" {notes[0]}" if notes else "")
