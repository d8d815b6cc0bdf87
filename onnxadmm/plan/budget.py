"""What the result may cost, as a share of the original or in absolute numbers."""

import re
from dataclasses import dataclass

from onnxadmm.errors import OptionError
from onnxadmm.units.cost import CostKind

Amount = float | int | str
#: What a budget may count: the name of its field and option, and the words for it.
COUNTED: dict[CostKind, str] = {"macs": "multiply-accumulates", "params": "parameters"}
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Budget:
    """What may be left of a model.

    Attributes:
        macs: multiply-accumulates of one sample; a share of the original (``0.3``) or a number (``"20M"``).
        params: parameters, likewise. One amount at the most.
        connections: share of the remaining weights that stay non-zero, in (0, 1]; None leaves them alone.

    Raises:
        OptionError: an amount is zero, negative or not a number; both or none are given.
    """

    macs: Amount | None = None
    params: Amount | None = None
    connections: float | None = None

    def __post_init__(self) -> None:
        given = [f"--{kind}" for kind in COUNTED if getattr(self, kind) is not None]
        if len(given) > 1:
            raise OptionError(
                "the budget", expected="one amount", found=f"both {' and '.join(given)}", way_out="give one of them"
            )
        if not given and self.connections is None:
            raise OptionError(
                "the budget", expected="an amount", found="none", way_out=f"give {amount_options()} or --connections"
            )
        if self.connections is not None and not 0 < self.connections <= 1:
            raise OptionError(
                "--connections",
                expected="a share above 0 and at most 1",
                found=f"{self.connections:g}",
                way_out="give the share of the remaining weights that stay, such as 0.5",
            )
        if self.amount is not None:
            parse_amount(self.amount, option=f"--{self.kind}")

    @property
    def kind(self) -> CostKind:
        """What is counted; parameters where only connections go."""
        return next((kind for kind in COUNTED if getattr(self, kind) is not None), "params")

    @property
    def amount(self) -> Amount | None:
        """The amount as given, None where only connections go."""
        amount: Amount | None = getattr(self, self.kind)
        return amount

    def resolve(self, dense: float) -> float:
        """Return the absolute budget for a model that costs ``dense``."""
        if self.amount is None:
            return dense
        number = parse_amount(self.amount, option=f"--{self.kind}")
        return number * dense if number <= 1 else min(number, dense)

    def describe(self) -> str:
        """Return the budget in words, as given."""
        parts = [] if self.amount is None else [f"{self.kind} {self.amount}"]
        if self.connections is not None:
            parts.append(f"connections {self.connections:g}")
        return ", ".join(parts)


def amount_options() -> str:
    """Return the options that give an amount, separated by commas."""
    return ", ".join(f"--{kind}" for kind in COUNTED)


def parse_amount(amount: Amount, *, option: str) -> float:
    """Return a share (at most 1) or an absolute number (above 1) from ``0.3``, ``431080`` or ``"20M"``.

    Raises:
        OptionError: it is not a number, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([KMG]?)\s*", str(amount))
    number = float(match[1]) * _FACTORS[match[2]] if match else 0.0
    if number <= 0:
        raise OptionError(
            option,
            expected="a share of the original such as 0.3, or a number such as 20M",
            found=repr(amount),
            way_out="give an amount above zero",
        )
    return number
