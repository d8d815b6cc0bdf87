"""Whether what a run is asked for goes together: data or samples, a time, a teacher, machines."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, Final

from onnxadmm.errors import OptionError
from onnxadmm.plan.given import given_or_usual
from onnxadmm.run.recipe import CalibrationOptions, Recipe

#: Share of the samples that is held out where they decide how small a network may get: a tenth says too little.
_JUDGES: Final = 0.5
#: What ``quick`` allows.
_QUICK_MINUTES: Final = 5.0


def leaves_method_open(recipe: Recipe, asked: Mapping[str, Any]) -> bool:
    """Whether there are data to train with, and neither recipe nor preset says how units are chosen.

    Args:
        asked: arguments of ``compress`` by name.
    """
    return recipe.method == "auto" and asked.get("data") is not None and asked.get("preset") is None


def refuse_no_training(recipe: Recipe, calibrating: CalibrationOptions | None) -> None:
    """Refuse machines where nothing trains.

    Raises:
        OptionError: so it is.
    """
    if calibrating is not None and recipe.retrain_epochs == 0:
        raise OptionError(
            "--cluster",
            expected="a run that trains",
            found="a calibration, in which nothing trains",
            way_out="leave --cluster out",
        )


def refuse_no_lesson(recipe: Recipe, *, calibrates: bool) -> None:
    """Refuse a teacher where nobody is taught.

    Args:
        calibrates: whether a calibration chooses units and fits layers, before anything trains.

    Raises:
        OptionError: so it is.
    """
    untaught = calibrates and recipe.retrain_epochs == 0
    if untaught or recipe.distillation == 0:
        raise OptionError(
            "--teacher",
            expected="a run that learns from it",
            found="a calibration, in which nothing trains" if untaught else "--distillation 0",
            way_out=f"{'give --retrain-epochs' if untaught else 'give it a weight'}, or leave --teacher out",
        )


def minutes_of(asked: SimpleNamespace, recipe: Recipe, *, calibrates: bool) -> float | None:
    """Return the minutes that a run may take; None: any time.

    Args:
        asked: the parameters of ``compress``, by name.
        calibrates: whether nothing trains before the cut.

    Raises:
        OptionError: the time is none, is given twice, or there are no epochs to be shortened.
    """
    if asked.max_minutes is None and not asked.quick:
        return None
    option = "--quick" if asked.quick else "--max-minutes"
    if asked.max_minutes is not None and (asked.quick or not 0 < asked.max_minutes < math.inf):
        raise OptionError(
            "--max-minutes",
            expected="minutes above 0, without --quick",
            found=f"{asked.max_minutes:g}{' and --quick' if asked.quick else ''}",
            way_out="give one of them",
        )
    if calibrates and recipe.retrain_epochs == 0:
        raise OptionError(
            option,
            expected="a run that trains, whose epochs can be shortened",
            found="a calibration, in which nothing does",
            way_out="use --effort quick, or give --retrain-epochs",
        )
    return _QUICK_MINUTES if asked.quick else float(asked.max_minutes)


def calibrating_with(
    data: object, calibrate: object, recipe: Recipe, options: CalibrationOptions | Mapping[str, Any] | None
) -> tuple[Recipe, CalibrationOptions | None]:
    """Return recipe and options of a run that may calibrate; options are None where it chooses while it trains.

    With samples alone the teacher alone is learned from, after the cut if at all.

    Raises:
        OptionError: there are data to train with and samples, or neither; targets for every layer or the paper's method
            beside samples; or options of a calibration beside a training.
    """
    chosen = given_or_usual(CalibrationOptions, options, "the calibration", 'CalibrationOptions(effort="best")')
    if data is not None and calibrate is None:
        if not recipe.chooses_at_once:
            _refuse_options(chosen)
            return recipe, None
        if chosen.max_drop is not None:
            raise OptionError(
                "--max-drop",
                expected="samples alone, or with data a search of networks that are trained",
                found="one run that is trained",
                way_out="use onnxadmm.search",
            )
        return recipe, chosen
    if data is not None or calibrate is None:
        raise OptionError(
            "the data",
            expected="--data to train with, or --calibrate with samples alone",
            found="both" if data is not None else "none",
            way_out="give one of them",
        )
    if recipe.mode == "joint":
        raise OptionError(
            "--mode", expected="holistic with --calibrate", found="joint", way_out="leave --mode and --target out"
        )
    if recipe.method not in ("auto", "calibrated"):
        raise OptionError(
            "--method",
            expected="auto or calibrated with --calibrate",
            found=recipe.method,
            way_out="leave --method out",
        )
    epochs = recipe.retrain_epochs if recipe.retrain_epochs is not None else recipe.epochs or 0
    if chosen.max_drop is not None and recipe.held_out == Recipe.held_out:
        recipe = replace(recipe, held_out=_JUDGES)
    return replace(recipe, method=Recipe.method, distillation=1.0, retrain_epochs=epochs), chosen


def _refuse_options(chosen: CalibrationOptions) -> None:
    """Refuse options of a calibration where there is none."""
    usual = CalibrationOptions()
    for item in fields(chosen):
        if getattr(chosen, item.name) != getattr(usual, item.name):
            raise OptionError(
                f"--{item.name.replace('_', '-')}",
                expected="a calibration, with --calibrate or --method calibrated",
                found="units that are chosen while the network trains",
                way_out="leave it out",
            )
