"""One table, printed to a terminal or written as plain text, Markdown or CSV.

rich is imported only to print to a terminal, so that receptive field arithmetic stays light.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

BAR_CELLS = 10
BAR_HEADING = f"0{'1':>{BAR_CELLS - 1}}"
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Cell:
    """Text of a cell with a rich style, such as "bold", that only terminals show."""

    text: str
    style: str = ""


class Table:
    """Rows of text under headings.

    Args:
        headings: One for each column.
        right: Headings of the columns that are aligned to the right, such as numbers.
        fixed: Headings of the columns that are never wrapped, in addition to `right`.
        title: Line above the table on a terminal.
        dense: Leave one space between the columns on a terminal, not three.

    Example:
        >>> table = Table(["tag", "AP"], right=["AP"])
        >>> table.add_row("flute", "0.913")
        >>> print(table.to_markdown(), end="")
        | tag | AP |
        |---|---|
        | flute | 0.913 |
    """

    def __init__(
        self,
        headings: Sequence[str],
        *,
        right: Collection[str] = (),
        fixed: Collection[str] = (),
        title: str = "",
        dense: bool = False,
    ) -> None:
        self.headings = tuple(headings)
        self.right = frozenset(right)
        self.fixed = self.right | frozenset(fixed)
        self.title = title
        self.dense = dense
        self.rows: list[tuple[Cell, ...]] = []

    def add_row(self, *cells: str | Cell) -> None:
        """Append a row with one cell for each heading."""
        if len(cells) != len(self.headings):
            raise ValueError(f"A row needs {len(self.headings)} cells. Received: {cells}.")
        self.rows.append(tuple(c if isinstance(c, Cell) else Cell(c) for c in cells))

    def to_text(self) -> str:
        """Return lines of columns two spaces apart, as wide as they need to be."""
        rows = [self.headings, *([cell.text for cell in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = []
        for row in rows:
            cells = [
                cell.rjust(width) if heading in self.right else cell.ljust(width)
                for cell, width, heading in zip(row, widths, self.headings, strict=True)
            ]
            lines.append("  ".join(cells).rstrip() + "\n")
        return "".join(lines)

    def to_markdown(self) -> str:
        """Return a Markdown table."""
        rows = [self.headings, *([cell.text for cell in row] for row in self.rows)]
        lines = [f"| {' | '.join(row)} |\n" for row in rows]
        lines.insert(1, "|" + "---|" * len(self.headings) + "\n")
        return "".join(lines)

    def to_rich(self) -> RichTable:
        """Return the table as rich prints it."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=0 if self.dense else (0, 1),
            title=Text(self.title) if self.title else None,
            title_justify="left",
        )
        for heading in self.headings:
            table.add_column(
                Text(heading),
                justify="right" if heading in self.right else "left",
                no_wrap=heading in self.fixed,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(Text(cell.text, cell.style) for cell in row))
        return table


def open_console(
    file: TextIO | None = None,
    *,
    width: int | None = None,
    least_width: int = 80,
    piped_width: int | None = None,
    wrap: bool = True,
) -> Console:
    """Return a console that prints text and tables literally, with colours only on terminals.

    Args:
        file: Where to print; None is standard output.
        width: Columns; None takes the terminal's.
        least_width: Minimum number of columns if `width` is None.
        piped_width: Columns if the output is not a terminal; None treats it like one.
        wrap: Wrap long lines. Cells of tables wrap in any case.
    """
    from rich.console import Console

    console = Console(
        file=file,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not wrap,
    )
    if width is None:
        piped = piped_width is not None and not console.is_terminal
        console.width = int(piped_width or 0) if piped else max(console.width, least_width)
    return console


def shows_unicode(console: Console) -> bool:
    """Return whether a console can show block characters and dashes."""
    return console.encoding.lower().startswith("utf")


def score_bar(value: float, unicode: bool = True) -> str:
    """Return a bar of up to ten cells for a value between 0 and 1.

    Args:
        value: The value.
        unicode: Draw with block characters; otherwise with `#`.
    """
    if not unicode:
        return "#" * round(value * BAR_CELLS)
    full, eighths = divmod(round(value * BAR_CELLS * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as CSV text with a header. None and missing cells are empty.

    Args:
        rows: One mapping of column to value per row.
        columns: Names of the columns; None takes those of the first row.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns or rows[0]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
