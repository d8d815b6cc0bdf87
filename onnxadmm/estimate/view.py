"""An estimate on the terminal: a table of its stages, what was measured, and what was not."""

from rich.console import Group, RenderableType
from rich.text import Text

from onnxadmm.estimate.record import Estimate
from onnxadmm.report.escaping import shown
from onnxadmm.report.fitting import Fitting, Rows
from onnxadmm.report.words import duration, large, size_in_bytes

_TITLES = ("stage", "takes", "epochs", "memory", "disk")


def estimate_view(found: Estimate) -> RenderableType:
    """Return the stages in a table, then what was measured and what was extrapolated."""
    priced = found.cost is not None
    rows = [
        (
            stage.name,
            duration(stage.seconds),
            str(stage.epochs or ""),
            _bytes(stage.memory_bytes),
            _bytes(stage.disk_bytes),
            *([_price(stage.cost)] if priced else []),
        )
        for stage in found.stages
    ]
    total = ("all of it", duration(found.seconds), "", _bytes(found.memory_bytes), _bytes(found.disk_bytes))
    rows.append((*total, _price(found.cost)) if priced else total)
    titles = (*_TITLES, "cost") if priced else _TITLES
    rates = ", ".join(f"{name} {large(rate)}" for name, rate in found.rates.items() if name.startswith("samples"))
    parts: list[RenderableType] = [Fitting(Rows(titles, rows))]
    if rates:
        parts.append(Text(f"Measured here, a second: {rates}.", style="dim"))
    parts += [shown(f"Note: {sentence}") for sentence in found.notes]
    if found.traffic_bytes:
        parts.append(Text(f"Over the link in all: {size_in_bytes(found.traffic_bytes)}."))
    return Group(*parts)


def _bytes(value: int) -> str:
    return size_in_bytes(value) if value else ""


def _price(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"
