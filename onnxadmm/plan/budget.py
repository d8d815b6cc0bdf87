"""What the result may cost, as a share of the original or in absolute numbers."""

import re
from dataclasses import dataclass
from typing import Literal

from onnxadmm.errors import OptionError

Amount = float | int | str
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Budget:
    """What may be left of a model.

    Attributes:
        macs: multiply-accumulates of one sample; a share of the original (``0.3``) or a number (``"20M"``).
        params: parameters, likewise. One of ``macs`` and ``params`` at the most.
        connections: share of the remaining weights that stay non-zero, in (0, 1]; None leaves them alone.

    Raises:
        OptionError: an amount is zero, negative or not a number; both or none are given.
    """

    macs: Amount | None = None
    params: Amount | None = None
    connections: float | None = None

    def __post_init__(self) -> None:
        if self.macs is not None and self.params is not None:
            raise OptionError(
                "the budget", expected="MACs or parameters", found="both", way_out="give --macs or --params, not both"
            )
        if self.macs is None and self.params is None and self.connections is None:
            raise OptionError(
                "the budget", expected="an amount", found="none", way_out="give --macs, --params or --connections"
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
    def kind(self) -> Literal["macs", "params"]:
        """What is counted; parameters where only connections go."""
        return "macs" if self.macs is not None else "params"

    @property
    def amount(self) -> Amount | None:
        """The amount as given, None where only connections go."""
        return self.macs if self.macs is not None else self.params

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
