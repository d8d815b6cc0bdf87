"""What the result may cost, as a share of the original or in absolute numbers."""

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from onnxadmm.errors import OptionError

if TYPE_CHECKING:
    from onnxadmm.units.cost import CostKind

Amount = float | int | str
Share = float | str


class Counted(NamedTuple):
    """The words for what is counted, and an absolute amount of it as an example."""

    words: str
    example: str


#: What a budget may count, by the name of its field and option.
COUNTED: "dict[CostKind, Counted]" = {
    "macs": Counted("multiply-accumulates", "20M"),
    "params": Counted("parameters", "20K"),
    "size": Counted("bytes of the file", "2MB"),
}
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Budget:
    """What may be left of a model.

    Attributes:
        macs: multiply-accumulates of one sample; a share of the original (``0.3`` or ``"30%"``) or a number
            (``"20M"``).
        params: parameters, likewise.
        size: bytes of the file as it is written, external data included: a share, or a number (``"2MB"``, ``"500kB"``).
            Several amounts are all met.
        connections: share of the remaining weights that stay non-zero, in (0, 1], read as a number where it is given
            as ``"50%"``; None leaves them alone.

    Raises:
        OptionError: an amount is zero, negative or not a number; none is given.

    Examples:
        ```python
        tenth = oa.Budget(params=0.1)
        both = oa.Budget(macs="20M", size="500kB")  # each is met
        sparse = oa.Budget(macs=0.5, connections="20%")
        ```
    """

    macs: Amount | None = None
    params: Amount | None = None
    size: Amount | None = None
    connections: Share | None = None

    def __post_init__(self) -> None:
        if not self.amounts and self.connections is None:
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
        for kind, amount in self.amounts.items():
            parse_amount(amount, option=f"--{kind}")

    def __repr__(self) -> str:
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return f"Budget({', '.join(f'{name}={value!r}' for name, value in given.items() if value is not None)})"

    @property
    def connection_share(self) -> float:
        """``connections`` as a number; 1 where they are left alone."""
        return 1.0 if self.connections is None else float(self.connections)

    @property
    def amounts(self) -> "dict[CostKind, Amount]":
        """The amounts that are given, by what they count; none where only connections go."""
        return {kind: amount for kind in COUNTED if (amount := getattr(self, kind)) is not None}

    def resolve(self, kind: "CostKind", dense: float) -> float:
        """Return the absolute budget for a model that costs ``dense``; that where no amount of the kind is given."""
        if kind not in self.amounts:
            return dense
        number = parse_amount(self.amounts[kind], option=f"--{kind}")
        return number * dense if number <= 1 else min(number, dense)

    def describe(self) -> str:
        """Return the budget in words, as given."""
        parts = [f"{kind} {amount}" for kind, amount in self.amounts.items()]
        if self.connections is not None:
            parts.append(f"connections {self.connection_share:g}")
        return ", ".join(parts)


def amount_options() -> str:
    """Return the options that give an amount, separated by commas."""
    return ", ".join(f"--{kind}" for kind in COUNTED)


def parse_amount(amount: Amount, *, option: str) -> float:
    """Return a share (at most 1) or an absolute number (above 1) from ``0.3``, ``"30%"``, ``431080`` or ``"20M"``.

    ``--size`` takes bytes: ``"2MB"``, ``"500kB"``.

    Raises:
        OptionError: it is not a number, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([kKMG]?B?|%)\s*", str(amount))
    unit = "" if match is None else match[2]
    understood = unit in _FACTORS and (option == "--size" or not unit.endswith("B"))
    number = 0.0
    if match is not None and (understood or unit == "%"):
        number = float(match[1]) / 100 if unit == "%" else float(match[1]) * _FACTORS[unit]
    if number <= 0 or (unit == "%" and number > 1):
        example = next((counted.example for kind, counted in COUNTED.items() if option == f"--{kind}"), "20M")
        raise OptionError(
            option,
            expected=f"a share of the original such as 0.3 or 30%, or a number such as {example}",
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
