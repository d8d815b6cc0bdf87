"""Tables that fit into the terminal they are printed in: whole, with less in them, or as a list."""

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from onnxadmm.report.escaping import shown

#: A column of names is folded to no less than this; below it, the table becomes a list.
_NAME_WIDTH = 18
_UNBOUNDED = 10_000


class Fitting:
    """The first of some tables that fits where it is printed; the rows of the last one as a list where none does."""

    def __init__(self, *tables: "Rows") -> None:
        self._tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for rows in self._tables:
            if _width(console, options, rows.table(folded=True)) <= options.max_width:
                yield rows.table()
                return
        yield from self._tables[-1].listed()


class Rows:
    """A table before it has a form.

    Args:
        titles: of the columns; the first one says what a row is about.
        rows: cells as text, escaped where they are shown.
        names: columns that are aligned to the left; all others are figures.
        folds: those of them that hold names of any length, which may be folded.
    """

    def __init__(
        self,
        titles: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        names: Collection[int] = (0,),
        folds: Collection[int] | None = None,
    ) -> None:
        self._titles = titles
        self._rows = rows
        self._names = names
        self._folds = names if folds is None else folds

    def table(self, *, folded: bool = False) -> Table:
        """The table; ``folded`` with names as narrow as they may become."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for index, title in enumerate(self._titles):
            if index in self._folds:
                width = max(_NAME_WIDTH, len(title)) if folded else None
                table.add_column(title, overflow="fold", max_width=width)
            else:
                table.add_column(title, justify="left" if index in self._names else "right", no_wrap=True)
        for row in self._rows:
            table.add_row(*map(shown, row))
        return table

    def listed(self) -> list[RenderableType]:
        """A line for every row, its figures with their titles in the lines below."""
        lines: list[RenderableType] = []
        for first, *cells in self._rows:
            lines.append(Text(shown(first).plain, style="bold", overflow="fold"))
            for title, cell in zip(self._titles[1:], cells, strict=True):
                if cell:
                    lines.append(
                        Padding(Text(f"{title}: {shown(cell).plain}", overflow="fold"), (0, 0, 0, 2), expand=False)
                    )
        return [Text(), *lines, Text()]


def _width(console: Console, options: ConsoleOptions, table: Table) -> int:
    return Measurement.get(console, options.update(max_width=_UNBOUNDED), table).maximum
