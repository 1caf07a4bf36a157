"""The report on screen: a table of the tags and a few lines of summary."""

from __future__ import annotations

import math
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rfkeras.evaluation.result import Report, TagRow
from rfkeras.tasks import SINGLE_LABEL

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

    Where tags have thresholds of their own, the column `cut` gives them. Single-label: a
    row per class by falling recall, which is the class's accuracy, with precision and F1.

    Tags without average precision come last, with the reason in place of the bar.

    Args:
        report: What to show.
        unicode: Draw the bars with block characters; otherwise with `#`.
    """
    single = report.task == SINGLE_LABEL
    main = "recall" if single else "AP"
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("class" if single else "tag", overflow="fold")
    for header in _headers(report):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column(f"0{'1':>{_BAR_CELLS - 1}}", no_wrap=True, min_width=_BAR_CELLS)
    for row in by_recall(report) if single else by_average_precision(report):
        cells = _cells(row, unicode)
        cells[main] = f"[bold]{cells[main]}[/]"
        shown = row.recall if single else row.average_precision
        table.add_row(
            escape(row.name),
            *(cells[header] for header in _headers(report)),
            row.undefined if math.isnan(shown) else f"[cyan]{bar(shown, unicode)}[/]",
        )
    return table


def _cells(row: TagRow, unicode: bool) -> dict[str, str]:
    figures = {
        "chance": row.chance,
        "AP": row.average_precision,
        "ROC-AUC": row.roc_auc,
        "AUC": row.roc_auc,
        "precision": row.precision,
        "F1": row.f1,
        "recall": row.recall,
    }
    return {header: _number(figure) for header, figure in figures.items()} | {
        "clips": f"{row.positive}",
        "pos/clips": f"{row.positive}/{row.annotated}",
        "95 % CI": _interval(row.average_precision_low, row.average_precision_high, unicode),
        "cut": f"{row.threshold:.2f}".removeprefix("0"),
    }


def _headers(report: Report) -> tuple[str, ...]:
    """Columns between the name and the bar, which is of AP or of recall."""
    if report.task == SINGLE_LABEL:
        return ("clips", "AP", "95 % CI", "precision", "F1", "recall")
    headers = ("pos/clips", "chance", "AP", "95 % CI")
    # One column more fits into 80 with OpenMIC's longest name and a shorter header.
    return (
        *headers,
        *(("AUC", "F1", "cut") if report.has_own_thresholds else ("ROC-AUC", "F1")),
    )


def summary_lines(report: Report, *, title: str = "Test", unicode: bool = True) -> list[str]:
    """The macro and micro figures beside their chance level, as rich markup.

    The first line has the task's main figure: the mAP or, single-label, the accuracy.

    Args:
        report: What to show.
        title: What was evaluated, the first word.
        unicode: Use a dash in intervals; otherwise a hyphen.
    """
    macro, micro = report.summary["macro"], report.summary["micro"]
    counts, chance = report.summary["counts"], report.summary["chance"]

    def with_interval(table: dict[str, float], key: str) -> str:
        interval = _interval(table[f"{key}_low"], table[f"{key}_high"], unicode, digits=3)
        return _number(table[key]) + (f" ({interval})" if interval else "")

    ranking = with_interval(macro, "average_precision")
    if report.task == SINGLE_LABEL:
        single = report.summary["single_label"]
        return [
            f"[bold]{escape(title)} accuracy {with_interval(single, 'accuracy')}[/]"
            f"  chance {_number(chance['accuracy'])}",
            f"macro accuracy {with_interval(single, 'macro_accuracy')}"
            f"  chance {_number(chance['macro_accuracy'])}"
            f"  log loss {_number(single['log_loss'])}",
            f"macro  mAP {ranking}  ROC-AUC {_number(macro['roc_auc'])}"
            f"  F1 {_number(macro['f1'])}",
            f"{counts['clips']} clips, {counts['tags']} classes",
        ]
    at_half = f"macro F1 with a threshold of 0.5 for every tag {_number(macro['f1_at_half'])}"
    return [
        f"[bold]{escape(title)} mAP {ranking}[/]  chance {_number(report.chance_level)}",
        f"macro  ROC-AUC {with_interval(macro, 'roc_auc')}  F1 {_number(macro['f1'])}"
        f"  precision {_number(macro['precision'])}  recall {_number(macro['recall'])}",
        *([at_half] if report.has_own_thresholds else []),
        f"micro  AP {_number(micro['average_precision'])}"
        f"  ROC-AUC {_number(micro['roc_auc'])}  F1 {_number(micro['f1'])}",
        f"{counts['clips']} clips, {counts['tags']} tags, {counts['annotated']} labels known, "
        f"{counts['positive']} of them positive",
    ]


def by_recall(report: Report) -> list[TagRow]:
    """The rows by falling recall, those without one last."""
    return _by_falling(report, [row.recall for row in report.tags])


def by_average_precision(report: Report) -> list[TagRow]:
    """The rows by falling average precision, those without one last."""
    return _by_falling(report, [row.average_precision for row in report.tags])


def bar(value: float, unicode: bool = True) -> str:
    """A bar of up to ten cells for a value between 0 and 1."""
    if not unicode:
        return "#" * round(value * _BAR_CELLS)
    full, eighths = divmod(round(value * _BAR_CELLS * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def _by_falling(report: Report, figures: list[float]) -> list[TagRow]:
    order = sorted(
        range(len(figures)),
        key=lambda tag: math.inf if math.isnan(figures[tag]) else -figures[tag],
    )
    return [report.tags[tag] for tag in order]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(low: float, high: float, unicode: bool, digits: int = 2) -> str:
    if math.isnan(low):
        return ""
    return f"{low:.{digits}f}{'–' if unicode else '-'}{high:.{digits}f}"  # noqa: RUF001 (a range)
