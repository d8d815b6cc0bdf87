"""Figures as people read them."""

import math
from typing import Final

_LARGE: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"))
_BYTES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def large(value: float) -> str:
    """A count: to the unit up to a million (``"431,080"``), then with four digits and a letter (``"2.293 M"``)."""
    if not math.isfinite(value):
        return f"{value:g}"
    for size, letter in _LARGE:
        if abs(value) >= size:
            return f"{_four_digits(value / size)} {letter}"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"


def size_in_bytes(value: int) -> str:
    """A file size in decimal units: ``"1.727 MB"``, ``"942 B"``."""
    for size, unit in _BYTES:
        if value >= size:
            return f"{_four_digits(value / size)} {unit}"
    return f"{value} B"


def amount(kind: str, value: float) -> str:
    """What a budget of some kind counts: bytes as a size, a latency in milliseconds, all else as a count."""
    if kind == "latency":
        return f"{milliseconds(value)} ms"
    return size_in_bytes(round(value)) if kind == "size" and math.isfinite(value) else large(value)


def percent(share: float) -> str:
    """A share in [0, 1] as ``"99.42 %"``."""
    return f"{100 * share:.2f} %"


def times(ratio: float) -> str:
    """A ratio as ``"12.6x"``, with as many digits as make sense."""
    if not math.isfinite(ratio):
        return "-"
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x"


def milliseconds(value: float) -> str:
    """Milliseconds with three significant digits, without a unit: ``"0.123"``, ``"12.3"``, ``"1230"``."""
    if value <= 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{min(digits, 6)}f}"


def duration(seconds: float) -> str:
    """A time as ``"0.4 s"``, ``"12 s"``, ``"3 min 05 s"`` or ``"1 h 04 min"``."""
    if seconds < 9.95 or not math.isfinite(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def decibels(value: float) -> str:
    """A signal-to-noise ratio; infinite means equal in every bit."""
    return "equal in every bit" if value == math.inf else f"{value:.1f} dB"


def plural(count: int, noun: str) -> str:
    """``"1 thread"``, ``"2 threads"``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _four_digits(value: float) -> str:
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
