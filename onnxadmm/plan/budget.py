"""What the result may cost, as a share of the original or in absolute numbers."""

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from onnxadmm.errors import OptionError

if TYPE_CHECKING:
    from onnxadmm.units.cost import CostKind

Amount = float | int | str
Share = float | str
#: What a budget may count: the name of its field and option, and the words for it.
COUNTED: "dict[CostKind, str]" = {"macs": "multiply-accumulates", "params": "parameters"}
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Budget:
    """What may be left of a model.

    Attributes:
        macs: multiply-accumulates of one sample; a share of the original (``0.3`` or ``"30%"``) or a number
            (``"20M"``).
        params: parameters, likewise. One amount at the most.
        connections: share of the remaining weights that stay non-zero, in (0, 1], read as a number where it is given
            as ``"50%"``; None leaves them alone.

    Raises:
        OptionError: an amount is zero, negative or not a number; both or none are given.
    """

    macs: Amount | None = None
    params: Amount | None = None
    connections: Share | None = None

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
        if self.connections is not None:
            share = parse_share(self.connections, option="--connections")
            if not 0 < share <= 1:
                raise OptionError(
                    "--connections",
                    expected="a share above 0 and at most 1",
                    found=f"{share:g}",
                    way_out="give the share of the remaining weights that stay, such as 0.5",
                )
            object.__setattr__(self, "connections", share)  # frozen from here on
        if self.amount is not None:
            parse_amount(self.amount, option=f"--{self.kind}")

    def __repr__(self) -> str:
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return f"Budget({', '.join(f'{name}={value!r}' for name, value in given.items() if value is not None)})"

    @property
    def connection_share(self) -> float:
        """``connections`` as a number; 1 where they are left alone."""
        return 1.0 if self.connections is None else float(self.connections)

    @property
    def kind(self) -> "CostKind":
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
            parts.append(f"connections {self.connection_share:g}")
        return ", ".join(parts)


def amount_options() -> str:
    """Return the options that give an amount, separated by commas."""
    return ", ".join(f"--{kind}" for kind in COUNTED)


def parse_amount(amount: Amount, *, option: str) -> float:
    """Return a share (at most 1) or an absolute number (above 1) from ``0.3``, ``"30%"``, ``431080`` or ``"20M"``.

    Raises:
        OptionError: it is not a number, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([KMG%]?)\s*", str(amount))
    percent = match is not None and match[2] == "%"
    number = 0.0 if match is None else float(match[1]) / 100 if percent else float(match[1]) * _FACTORS[match[2]]
    if number <= 0 or (percent and number > 1):
        raise OptionError(
            option,
            expected="a share of the original such as 0.3 or 30%, or a number such as 20M",
            found=repr(amount),
            way_out="give an amount above zero, and at most 100%",
        )
    return number


def parse_share(share: Share, *, option: str) -> float:
    """Return the number of a share that is written as ``0.3``, ``"0.3"`` or ``"30%"``; its range is not looked at.

    Raises:
        OptionError: it is not a number.
    """
    text = str(share).strip()
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise OptionError(
            option, expected="a share such as 0.3 or 30%", found=repr(share), way_out="give a number"
        ) from error
