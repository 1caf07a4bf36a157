"""The report on screen: a table of the tags and a few lines of summary."""

from __future__ import annotations

import math
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rfkeras.evaluation.result import Report, TagRow

_BAR_CELLS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"
_NARROWEST = 80


def print_report(
    report: Report, *, title: str = "Test", file: TextIO | None = None, width: int | None = None
) -> None:
    """Print the tag table, the summary and the notes.

    Colours appear on a terminal only; piped to a file the same lines are plain text of 80
    columns. An output that cannot show block characters gets bars of `#`.

    Args:
        report: What to show.
        title: What was evaluated: "Test" gives the line "Test mAP".
        file: Where to; None is standard output.
        width: Columns; None takes the terminal's, at least 80.
    """
    console = Console(file=file, width=width, highlight=False)
    if width is None and console.width < _NARROWEST:
        console.width = _NARROWEST
    unicode = console.encoding.lower().startswith("utf")
    console.print(tag_table(report, unicode=unicode))
    for line in summary_lines(report, title=title, unicode=unicode):
        console.print(line)
    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(note)}")


def tag_table(report: Report, *, unicode: bool = True) -> Table:
    """A row per tag, best first: clips, average precision and its interval, ROC-AUC, F1.

    Tags without average precision come last, with the reason in place of the bar.

    Args:
        report: What to show.
        unicode: Draw the bars with block characters; otherwise with `#`.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("tag", overflow="fold")
    for header in ("pos/clips", "chance", "AP", "95 % CI", "ROC-AUC", "F1"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column(f"0{'1':>{_BAR_CELLS - 1}}", no_wrap=True, min_width=_BAR_CELLS)
    for row in by_average_precision(report):
        precision = row.average_precision
        table.add_row(
            escape(row.name),
            f"{row.positive}/{row.annotated}",
            _number(row.chance),
            f"[bold]{_number(precision)}[/]",
            _interval(row.average_precision_low, row.average_precision_high, unicode),
            _number(row.roc_auc),
            _number(row.f1),
            row.undefined if math.isnan(precision) else f"[cyan]{bar(precision, unicode)}[/]",
        )
    return table


def summary_lines(report: Report, *, title: str = "Test", unicode: bool = True) -> list[str]:
    """The macro and micro figures, mAP beside its chance level, as rich markup.

    Args:
        report: What to show.
        title: What was evaluated, the first word.
        unicode: Use a dash in intervals; otherwise a hyphen.
    """
    macro, micro = report.summary["macro"], report.summary["micro"]
    counts = report.summary["counts"]

    def with_interval(key: str) -> str:
        interval = _interval(macro[f"{key}_low"], macro[f"{key}_high"], unicode, digits=3)
        return _number(macro[key]) + (f" ({interval})" if interval else "")

    return [
        f"[bold]{escape(title)} mAP {with_interval('average_precision')}[/]"
        f"  chance {_number(report.chance_level)}",
        f"macro  ROC-AUC {with_interval('roc_auc')}  F1 {_number(macro['f1'])}"
        f"  precision {_number(macro['precision'])}  recall {_number(macro['recall'])}",
        f"micro  AP {_number(micro['average_precision'])}"
        f"  ROC-AUC {_number(micro['roc_auc'])}  F1 {_number(micro['f1'])}",
        f"{counts['clips']} clips, {counts['tags']} tags, {counts['annotated']} labels known, "
        f"{counts['positive']} of them positive",
    ]


def by_average_precision(report: Report) -> list[TagRow]:
    """The rows by falling average precision, those without one last."""
    return sorted(
        report.tags,
        key=lambda row: (
            math.inf if math.isnan(row.average_precision) else -row.average_precision
        ),
    )


def bar(value: float, unicode: bool = True) -> str:
    """A bar of up to ten cells for a value between 0 and 1."""
    if not unicode:
        return "#" * round(value * _BAR_CELLS)
    full, eighths = divmod(round(value * _BAR_CELLS * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(low: float, high: float, unicode: bool, digits: int = 2) -> str:
    if math.isnan(low):
        return ""
    return f"{low:.{digits}f}{'–' if unicode else '-'}{high:.{digits}f}"  # noqa: RUF001 (a range)
