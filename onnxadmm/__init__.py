"""Make an ONNX model smaller and faster: ADMM joint pruning, structured removal proven equivalent, a report."""

from onnxadmm.compress import compress
from onnxadmm.errors import OnnxAdmmError
from onnxadmm.graph.model import Model, load, save
from onnxadmm.own_rules import rule
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.plan import Plan
from onnxadmm.plan.problem import Limits
from onnxadmm.report.report import Report
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.surgery import bench, find_groups, mask, rank, shrink, verify

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Limits",
    "Model",
    "OnnxAdmmError",
    "Plan",
    "Preprocessing",
    "Recipe",
    "Report",
    "bench",
    "compress",
    "find_groups",
    "load",
    "mask",
    "rank",
    "rule",
    "save",
    "shrink",
    "verify",
]
