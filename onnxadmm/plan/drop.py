"""How much a promise lets go: points, or percent of what the original has."""

from dataclasses import dataclass

from onnxadmm.errors import OptionError


@dataclass(frozen=True)
class Drop:
    """What may be lost of the figure that decides, on held-out data.

    Attributes:
        amount: points of a share (accuracy, F1...), percent of anything else.
        relative: whether it is percent of what the original has of a share as well.
    """

    amount: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{self.amount:g}{'%' if self.relative else ''}"

    @property
    def asked(self) -> float | str:
        """It as a caller writes it."""
        return str(self) if self.relative else self.amount

    def allowed(self, original: float | None) -> float:
        """Return what may be lost, in points of a share, or in percent of anything else.

        Args:
            original: what the original has, where it is a share; None: it is none.
        """
        return self.amount if original is None or not self.relative else self.amount * original


def parse_drop(asked: float | str, *, nothing: bool = False) -> Drop:
    """Return what ``1``, ``"1"`` or ``"2%"`` lets go.

    Args:
        nothing: whether 0 will do.

    Raises:
        OptionError: it is no number above 0 and at most 100.
    """
    text = str(asked).strip()
    try:
        amount = float(text.removesuffix("%"))
    except ValueError:
        amount = -1.0
    if not 0 <= amount <= 100 or (amount == 0 and not nothing):
        raise OptionError(
            "--max-drop",
            expected=f"points {'from 0 to' if nothing else 'above 0 and at most'} 100, or percent of what the original "
            "has, such as 2%",
            found=repr(asked) if isinstance(asked, str) else f"{asked:g}",
            way_out="1 is usual",
        )
    return Drop(amount, relative=text.endswith("%"))
