"""Imports ``onnx_ir`` without sympy, which takes longer to import than everything else together.

``onnx_ir`` computes with sympy only where it is asked to do arithmetic with symbolic dimensions, yet imports it at its
top. While ``onnx_ir`` is being imported, stand-ins take the places of sympy and of its parser of expressions; each
imports what it stands for when an attribute of it is asked for first. Afterwards nothing is left in ``sys.modules``:
whoever imports sympy gets sympy. An ``onnx_ir`` that needs sympy at once, or never, works as well.
"""

import importlib
import sys
from types import ModuleType
from typing import Any, Final

#: What ``onnx_ir`` imports at its top and hardly ever uses.
_SLOW: Final = ("sympy", "onnx_ir._symbolic_shapes")


class _StandIn(ModuleType):
    """Has the attributes of the module of its name, which is imported when the first one is asked for."""

    def __getattr__(self, name: str) -> Any:
        self.step_aside()
        return getattr(_imported(self.__name__), name)

    def step_aside(self) -> None:
        """Give the name back, so that importing it finds the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


def _imported(name: str) -> ModuleType:
    return importlib.import_module("sympy") if name == "sympy" else importlib.import_module("onnx_ir._symbolic_shapes")


def _import_lightly() -> None:
    if "onnx_ir" in sys.modules:
        return
    stand_ins = [_StandIn(name) for name in _SLOW if name not in sys.modules]
    sys.modules.update({stand_in.__name__: stand_in for stand_in in stand_ins})
    try:
        importlib.import_module("onnx_ir")
    finally:
        for stand_in in stand_ins:
            stand_in.step_aside()


_import_lightly()
