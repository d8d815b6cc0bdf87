"""What the result may cost, as a share of the original or in absolute numbers."""

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

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
    "latency": Counted("milliseconds of a run on this processor", "3ms"),
}
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Budget:
    """What may be left of a model.

    Attributes:
        macs: multiply-accumulates of one sample; a share of the original (``0.3`` or ``"30%"``) or a number
            (``"20M"``).
        params: parameters, likewise.
        size: bytes of the file as it is written, external data included: a share, or a number (``"2MB"``, ``"500kB"``).
            Several amounts are all met.
        latency: milliseconds of one run on the processor that the plan is made on, as it is measured there: a share, or
            a time (``"3ms"``, ``"800us"``).
        latency_batch: batch size of that run; a file that fixes another one has it.
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
    latency: Amount | None = None
    latency_batch: int = 1
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
        if self.latency_batch < 1:
            raise OptionError(
                "--latency-batch",
                expected="at least 1",
                found=str(self.latency_batch),
                way_out="give a positive batch size",
            )
        if self.latency_batch != 1 and self.latency is None:
            raise OptionError(
                "--latency-batch", expected="--latency, which it is about", found="none", way_out="give that as well"
            )
        for kind, amount in self.amounts.items():
            parse_amount(amount, option=f"--{kind}")

    def __repr__(self) -> str:
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.latency_batch == 1:
            del given["latency_batch"]
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
        """Return the absolute budget for a model that costs ``dense``; that where no amount of the kind is given.

        An amount may be above what the model costs.
        """
        if kind not in self.amounts:
            return dense
        number = parse_amount(self.amounts[kind], option=f"--{kind}")
        return number * dense if self._is_share(kind, number) else number

    def before_measuring(self) -> "Budget":
        """Return the budget with multiply-accumulates in place of a latency that nobody has measured yet."""
        if self.latency is None:
            return self
        stands_for = 0.5 if self.latency_share is None else self.latency_share
        return replace(self, latency=None, latency_batch=1, macs=stands_for if self.macs is None else self.macs)

    @property
    def latency_share(self) -> float | None:
        """Share of the original's latency that may stay; None where that is a time, or nothing is said of it."""
        number = None if self.latency is None else parse_amount(self.latency, option="--latency")
        return number if number is not None and self._is_share("latency", number) else None

    def _is_share(self, kind: "CostKind", number: float) -> bool:
        return number <= 1 and not (kind == "latency" and str(self.latency).strip().endswith("s"))

    def describe(self) -> str:
        """Return the budget in words, as given."""
        parts = [f"{kind} {amount}" for kind, amount in self.amounts.items()]
        if self.latency is not None and self.latency_batch != 1:
            parts[-1] += f" at batch {self.latency_batch}"
        if self.connections is not None:
            parts.append(f"connections {self.connection_share:g}")
        return ", ".join(parts)


def budget_of(kind: "CostKind", amount: Amount) -> Budget:
    """Return the budget of one kind."""
    amounts: dict[str, Any] = {kind: amount}
    return Budget(**amounts)


def amount_options() -> str:
    """Return the options that give an amount, separated by commas."""
    return ", ".join(f"--{kind}" for kind in COUNTED)


def parse_amount(amount: Amount, *, option: str) -> float:
    """Return a share (at most 1) or an absolute number (above 1) from ``0.3``, ``"30%"``, ``431080`` or ``"20M"``.

    ``--size`` takes bytes (``"2MB"``, ``"500kB"``), and ``--latency`` times (``"3ms"``, ``"800us"``, ``"0.5s"``), which
    come back in milliseconds.

    Raises:
        OptionError: it is not a number, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([kKMG]?B?|%|us|ms|s)\s*", str(amount))
    unit = "" if match is None else match[2]
    number = 0.0 if match is None else _with_unit(float(match[1]), unit, option=option)
    without_unit = option == "--latency" and not unit and number > 1  # whether those are milliseconds nobody knows
    if number <= 0 or (unit == "%" and number > 1) or without_unit:
        example = next((counted.example for kind, counted in COUNTED.items() if option == f"--{kind}"), "20M")
        raise OptionError(
            option,
            expected=f"a share of the original such as 0.3 or 30%, or a number such as {example}",
            found=repr(amount),
            way_out="give an amount above zero, and at most 100%",
        )
    return number


def _with_unit(number: float, unit: str, *, option: str) -> float:
    """A number in the unit of the option; 0 where that does not take the unit it was given in."""
    if unit == "%":
        return number / 100
    if option == "--latency":
        return number * _MILLISECONDS.get(unit, 0.0 if unit else 1.0)
    return number * _FACTORS.get(unit, 0) if option == "--size" or not unit.endswith("B") else 0.0


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
