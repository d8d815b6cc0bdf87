"""The node on which native code crashes, found by running ever shorter parts of a model in processes of their own."""

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir

from onnxadmm.graph.harmless import doubtful_nodes
from onnxadmm.graph.model import Model
from onnxadmm.graph.part import up_to
from onnxadmm.runtime.apart import CrashError

Attempt = Callable[[Model, Mapping[str, Any]], object]


def crashing_node(model: Model, feed: Mapping[str, Any], attempt: Attempt) -> onnx_ir.Node | None:
    """Find the first node, in the order of the graph, up to which a model crashes.

    Only those that are not known to be harmless are looked at: every attempt loads the model anew.

    Args:
        model: what crashed.
        feed: what it was fed; empty where it crashed while it was opened.
        attempt: opens a part in a process of its own, and runs it where there is a feed.

    Returns:
        The node; None where no part crashes, or one takes too long.
    """
    nodes = [node for node in doubtful_nodes(model) if any(value.name for value in node.outputs)]
    clean, crashing = 0, len(nodes)
    if not nodes or not _crashes(model, nodes, feed, attempt):
        return None
    # Parts of `clean` nodes run and parts of `crashing` nodes crash.
    while crashing - clean > 1:
        middle = (clean + crashing) // 2
        if _crashes(model, nodes[:middle], feed, attempt):
            crashing = middle
        else:
            clean = middle
    return nodes[crashing - 1]


def _crashes(model: Model, nodes: list[onnx_ir.Node], feed: Mapping[str, Any], attempt: Attempt) -> bool:
    names = {value.name for node in nodes for value in node.outputs if value.name}
    part = up_to(model, names)
    inputs = {value.name for value in part.ir.graph.inputs}
    try:
        attempt(part, {name: array for name, array in feed.items() if name in inputs})
    except CrashError:
        return True
    except Exception:  # a part that is refused does not crash
        return False
    return False
