"""Runs of ``compress`` that benchmarks take step by step."""

from collections.abc import Mapping
from pathlib import Path

from onnxadmm.graph.model import load
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits
from onnxadmm.progress import SILENT
from onnxadmm.run.choices import Choices
from onnxadmm.run.ending import Ending
from onnxadmm.run.journal import Journal
from onnxadmm.run.recipe import CalibrationOptions, Preprocessing, Recipe
from onnxadmm.run.steps import Compression


def begin(
    model: Path,
    budget: Budget | None,
    recipe: Recipe,
    preprocessing: Preprocessing,
    *,
    round_to: int,
    seed: int,
    data: object,
    test: object | None,
) -> Compression:
    """Find the units and read the data; nothing is written or timed in the end.

    Args:
        round_to: of the limits of every group.
    """
    recipe = recipe.settled(connections=budget is not None and budget.connections is not None)
    choices = Choices(
        budget=budget,
        targets={},
        connection_targets={},
        preset=None,
        limits=Limits(round_to=round_to),
        preprocessing=preprocessing,
        calibration=CalibrationOptions() if recipe.chooses_at_once else None,
        recipe=recipe,
        ignore=(),
        inexact=False,
        features=False,
        simplified=True,
        seed=seed,
        input_shapes=None,
        custom_ops=None,
        rules=None,
        teacher=None,
        max_minutes=None,
        inputs={},
    )
    ending = Ending(sparse=True, single_file=False, int8=False, fp16=False, timing=None, options={})
    run = Compression(load(model), choices, Journal(SILENT), ending)
    run.find()
    run.read(data, test)
    return run


def forget(state: Mapping[str, object]) -> None:
    """Keep no checkpoint of a training."""
