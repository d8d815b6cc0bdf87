"""What is asked of an estimate beside what ``compress`` is given, and refusals of what makes no sense."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from onnxadmm.errors import OptionError
from onnxadmm.estimate.scaling import Machines
from onnxadmm.plan.given import given_or_usual
from onnxadmm.run.asked import leaves_method_open
from onnxadmm.run.recipe import Recipe
from onnxadmm.runtime.cores import usable_cores

_BYTES_OF_MBIT: Final = 125_000.0
#: Arguments of ``compress`` that are about a run that there is, or that the hours say.
_NOT_ASKED: Final = {"resume": "--resume", "quick": "--quick", "max_minutes": "--max-minutes"}


@dataclass(frozen=True)
class Question:
    """What a run shall fit, and where it shall take place.

    Attributes:
        hours: that all of it may take; None: any time.
        cores: of each machine; None: those of this one.
        machines: how many.
        samples: that those of the data stand for; None: themselves.
        price_per_core_hour: of one core for an hour, in any currency; None: costs are not told.
        link_mbit: megabits a second between machines, in either direction.

    Raises:
        OptionError: a number is out of range.
    """

    hours: float | None = None
    cores: int | None = None
    machines: int = 1
    samples: int | None = None
    price_per_core_hour: float | None = None
    link_mbit: float = 1000.0

    def __post_init__(self) -> None:
        for option, number in (("--cores", self.cores), ("--machines", self.machines), ("--samples", self.samples)):
            if number is not None and number < 1:
                raise OptionError(option, expected="at least 1", found=str(number), way_out="give a larger number")
        for option, value in (("--hours", self.hours), ("--link-mbit", self.link_mbit)):
            if value is not None and not 0 < value < math.inf:
                raise OptionError(option, expected="above 0", found=f"{value:g}", way_out="give a larger number")
        price = self.price_per_core_hour
        if price is not None and not 0 <= price < math.inf:
            raise OptionError(
                "--price-per-core-hour", expected="at least 0", found=f"{price:g}", way_out="give what a core costs"
            )

    @property
    def place(self) -> Machines:
        """Where the run shall take place."""
        return Machines(self.cores or usable_cores(), self.machines, self.link_mbit * _BYTES_OF_MBIT)

    @property
    def is_elsewhere(self) -> bool:
        """Whether that is not this machine alone."""
        return self.machines > 1 or self.cores not in (None, usable_cores())

    def cost(self, seconds: float) -> float | None:
        """Return the price of all cores for so long; None where none was given."""
        price = self.price_per_core_hour
        return None if price is None else price * self.place.cores * self.machines * seconds / 3600

    def of_training(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a run that what is asked can be told of: it may have to train from the beginning.

        Args:
            call: arguments of ``compress`` by name; a method that is left open is ``"admm"`` then.

        Raises:
            OptionError: the run calibrates, and something is asked that no calibration is told by.
        """
        asked = {
            "--hours": self.hours is not None,
            "--cores": self.is_elsewhere and self.machines == 1,
            "--machines": self.machines > 1,
            "--samples": self.samples is not None,
        }
        option = next((option for option, is_asked in asked.items() if is_asked), None)
        recipe = given_or_usual(Recipe, call.get("recipe"), "the recipe", "Recipe(epochs=5)")
        if option is not None and (call.get("calibrate") is not None or recipe.chooses_at_once):
            raise OptionError(
                option,
                expected="a run with --data that trains while it chooses",
                found="a calibration",
                way_out=f"leave {option} out: what a calibration takes is told of this machine and these samples",
            )
        # The cores of this machine are told beside those of others.
        if (option is not None or self.cores is not None) and leaves_method_open(recipe, call):
            return call | {"recipe": replace(recipe, method="admm")}
        return call


def refuse_others(call: Mapping[str, Any]) -> None:
    """Refuse arguments of ``compress`` that an estimate has nothing to do with.

    Raises:
        OptionError: there is one.
    """
    recipe = given_or_usual(Recipe, call.get("recipe"), "the recipe", "Recipe(epochs=5)")
    if recipe.cluster is not None:
        raise OptionError(
            "--cluster",
            expected="one machine, from whose steps those of several are told",
            found=recipe.cluster,
            way_out="use --machines instead",
        )
    for name, option in _NOT_ASKED.items():
        if call.get(name):
            raise OptionError(
                option,
                expected="a run that is not limited and begins anew",
                found=option,
                way_out="use --hours instead",
            )
