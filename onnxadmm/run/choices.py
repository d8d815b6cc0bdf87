"""What a run was asked for, and what of that decides its result."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.plan.budget import Budget, budget_of
from onnxadmm.plan.problem import Limits
from onnxadmm.run.checkpoint import options_as_text
from onnxadmm.run.recipe import CalibrationOptions, Preprocessing, Recipe
from onnxadmm.train.figures import name_of
from onnxadmm.train.norm_restore import ENOUGH
from onnxadmm.units.cost import CostKind

#: What an interrupted run may go on with in another way: another engine, more or fewer processes, more or less memory,
#: other machines. Everything else decides the result.
FREE_TO_CHANGE = frozenset({"engine", "threads", "workers", "accumulate", "memory", "cluster", "local_steps"})

#: Fields that may be None, and the options that are missing then.
_ABSENT: Mapping[str, type[Any]] = {"budget": Budget, "calibration": CalibrationOptions}

Option = str | int | float | bool | None

#: Presets, with the share of all units that each lets stay in holistic mode.
UNIT_SHARES: Mapping[str, float] = {"lenet5-paper": 0.52}

#: Fields that the command line calls otherwise.
_OPTION_NAMES = {
    "targets": "target",
    "connection_targets": "connection_target",
    "inputs": "input",
    "simplified": "simplify",
    "input_shapes": "input_shape",
}


@dataclass(frozen=True)
class Choices:
    """What the user chose; every field, and every field of a field that is a dataclass, is an option of its own.

    Attributes:
        budget: what the result may cost; None where ``targets`` say it.
        targets: share of the units that stays, by pattern.
        connection_targets: share of the connections that stays, by pattern.
        preset: name of the settings that others were taken from; None: no preset.
        limits: how far a group may shrink.
        inputs: values of inputs by name that are the same for every sample.
        preprocessing: what is done to stored values.
        calibration: how to calibrate, before anything trains; None where the network is pruned while it trains.
        recipe: how to train.
        ignore: patterns of what must stay.
        inexact: prune through operators that mix along the removed axis as well.
        features: columns behind a flattening are units of their own.
        simplified: simplify the model first.
        seed: of every random choice.
        input_shapes: what was stated of sizes that the file leaves free, as text; None where nothing was.
        custom_ops: sha256 of the libraries of custom operators; None without any.
        rules: sha256 of the files with rules of the user's own; None without any.
        teacher: sha256 of the network that teaches in place of the original; None: the original does.
        max_minutes: what the run may take: its epochs are shortened before it trains until they fit; None: any time.
    """

    budget: Budget | None
    targets: Mapping[str, float]
    connection_targets: Mapping[str, float]
    preset: str | None
    inputs: Mapping[str, object]
    limits: Limits
    preprocessing: Preprocessing
    calibration: CalibrationOptions | None
    recipe: Recipe
    ignore: tuple[str, ...]
    inexact: bool
    features: bool
    simplified: bool
    seed: int
    input_shapes: str | None
    custom_ops: tuple[str, ...] | None
    rules: tuple[str, ...] | None
    teacher: str | None
    max_minutes: float | None

    def with_epochs_of(self, options: Mapping[str, str]) -> "Choices":
        """The choices with the epochs of an interrupted run that were fitted to a time, as that run had them.

        Args:
            options: those of that run, as ``deciding`` gave them.
        """
        if self.max_minutes is None:
            return self
        told = {name: options.get(f"--{name.replace('_', '-')}", "") for name in ("epochs", "retrain_epochs")}
        epochs: dict[str, Any] = {name: int(text) for name, text in told.items() if text.isdecimal()}
        return replace(self, recipe=replace(self.recipe, **epochs))

    @property
    def calibrates(self) -> bool:
        """Whether a calibration chooses units and fits layers, before anything trains."""
        return self.calibration is not None

    @property
    def samples_alone(self) -> bool:
        """Whether it has samples without labels; else there are training data, some of which it looks at."""
        return self.calibration is not None and not self.recipe.chooses_at_once

    @property
    def unit_share(self) -> float | None:
        """Share of all units that stays at most, whatever they cost, where a preset says so."""
        return None if self.preset is None or self.recipe.mode == "joint" else UNIT_SHARES[self.preset]

    @property
    def goal(self) -> Budget | None:
        """The budget as asked for; where the least is searched for that keeps a promise, all of what it counts."""
        least = self._least
        return self.budget if least is None else budget_of(least, 1)

    def budget_met(self, problem: Problem, keep: KeepArray) -> Budget | None:
        """The budget as asked for; where the least was searched for that keeps a promise, what was found."""
        if self._least is None:
            return self.budget
        share = problem.cost.total(keep) / problem.dense
        return budget_of(self._least, math.ceil(1e4 * share) / 1e4)

    @property
    def _least(self) -> CostKind | None:
        """What is to cost the least, where a promise is to be kept instead of a budget."""
        return None if self.calibration is None or self.calibration.max_drop is None else self.calibration.by

    def deciding(self) -> dict[str, str]:
        """What decides the result, as text by name on the command line; a new field is among it by itself.

        Raises:
            ValueError: two fields make one option, of which only one would be seen.
        """
        values: dict[str, Any] = {}
        for name, value in self._options():
            if name in values:
                raise ValueError(f"two options are called {name}")
            values[name] = value
        if self.recipe.norm == "auto" and self.recipe.part_size < ENOUGH:
            values["norm"] = "auto, in parts too small for batch statistics"  # another network trains
        return options_as_text({name: value for name, value in values.items() if name not in FREE_TO_CHANGE})

    def options(self) -> dict[str, Option]:
        """What was chosen, by name on the command line, as a report holds it."""
        return {name: _plain(value) for name, value in self._options()}

    def _options(self) -> Iterator[tuple[str, Any]]:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and item.name in _ABSENT:
                yield from ((option.name, None) for option in fields(_ABSENT[item.name]))
            elif is_dataclass(value) and not isinstance(value, type):
                # A function is known by its name: it lies elsewhere in every process.
                yield from ((name, name_of(each) if callable(each) else each) for name, each in asdict(value).items())
            else:
                yield _OPTION_NAMES.get(item.name, item.name), value


def _plain(value: object) -> Option:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_brief(item)}" for name, item in value.items()) or None
    return (", ".join(map(str, value)) or None) if isinstance(value, Iterable) else str(value)


def _brief(value: object) -> str:
    """A value on one line; of an array that is long only what it is."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"a {type(value).__name__}"
