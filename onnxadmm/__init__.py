"""Make an ONNX model smaller and faster: ADMM joint pruning, structured removal proven equivalent, a report.

A name is imported when it is asked for first, so that nothing waits for what it does not use.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from onnxadmm.compress import compress, forecast
    from onnxadmm.errors import OnnxAdmmError
    from onnxadmm.estimate.call import estimate
    from onnxadmm.estimate.record import Estimate, StageEstimate
    from onnxadmm.graph.by_name import weights, with_weights
    from onnxadmm.graph.model import Model, load, save
    from onnxadmm.own_rules import rule
    from onnxadmm.plan.budget import Budget
    from onnxadmm.plan.plan import Plan
    from onnxadmm.plan.problem import Limits
    from onnxadmm.planning import rank
    from onnxadmm.progress import Advance, Iteration, LoggedProgress, Note, Progress, Residuals, Stage
    from onnxadmm.quantize import Quantized, quantize
    from onnxadmm.report.report import Report
    from onnxadmm.report.tradeoff import TradeOff
    from onnxadmm.run.forecast import Forecast
    from onnxadmm.run.recipe import CalibrationOptions, Preprocessing, Recipe
    from onnxadmm.run.result import Compressed
    from onnxadmm.search import search
    from onnxadmm.surgery import bench, find_groups, mask, shrink, verify
    from onnxadmm.sweep import sweep

__version__ = "0.1.0"

__all__ = [
    "Advance",
    "Budget",
    "CalibrationOptions",
    "Compressed",
    "Estimate",
    "Forecast",
    "Iteration",
    "Limits",
    "LoggedProgress",
    "Model",
    "Note",
    "OnnxAdmmError",
    "Plan",
    "Preprocessing",
    "Progress",
    "Quantized",
    "Recipe",
    "Report",
    "Residuals",
    "Stage",
    "StageEstimate",
    "TradeOff",
    "bench",
    "compress",
    "estimate",
    "find_groups",
    "forecast",
    "load",
    "mask",
    "quantize",
    "rank",
    "rule",
    "save",
    "search",
    "shrink",
    "sweep",
    "verify",
    "weights",
    "with_weights",
]

#: Where each name is. The imports above say the same to type checkers; a test holds the two together.
_HOMES: Final = {
    "onnxadmm.compress": ("compress", "forecast"),
    "onnxadmm.errors": ("OnnxAdmmError",),
    "onnxadmm.estimate.call": ("estimate",),
    "onnxadmm.estimate.record": ("Estimate", "StageEstimate"),
    "onnxadmm.graph.by_name": ("weights", "with_weights"),
    "onnxadmm.graph.model": ("Model", "load", "save"),
    "onnxadmm.own_rules": ("rule",),
    "onnxadmm.plan.budget": ("Budget",),
    "onnxadmm.plan.plan": ("Plan",),
    "onnxadmm.plan.problem": ("Limits",),
    "onnxadmm.progress": ("Advance", "Iteration", "LoggedProgress", "Note", "Progress", "Residuals", "Stage"),
    "onnxadmm.quantize": ("Quantized", "quantize"),
    "onnxadmm.report.report": ("Report",),
    "onnxadmm.run.forecast": ("Forecast",),
    "onnxadmm.run.recipe": ("CalibrationOptions", "Preprocessing", "Recipe"),
    "onnxadmm.run.result": ("Compressed",),
    "onnxadmm.planning": ("rank",),
    "onnxadmm.report.tradeoff": ("TradeOff",),
    "onnxadmm.search": ("search",),
    "onnxadmm.sweep": ("sweep",),
    "onnxadmm.surgery": ("bench", "find_groups", "mask", "shrink", "verify"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """This package. ``compress`` and ``bench`` are its functions and modules in it: the functions have the names."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        # Whenever a module was imported, Python sets it as an attribute of its package.
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
