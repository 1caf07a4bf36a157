"""Print a report: a table of the tags and a few lines of summary."""

from __future__ import annotations

import math
from typing import TextIO

from rich.text import Text

from rfkeras.evaluation.result import Report, TagRow
from rfkeras.tasks import SINGLE_LABEL
from rfkeras.utils.table import (
    BAR_HEADING,
    Cell,
    Table,
    open_console,
    score_bar,
    shows_unicode,
)
from rfkeras.utils.text import count


def print_report(
    report: Report, *, title: str = "Test", file: TextIO | None = None, width: int | None = None
) -> None:
    """Print the tag table, the summary and the notes.

    Colours appear only on a terminal. Piped to a file, the same lines are plain text of 80
    columns. An output that cannot show block characters gets bars of `#`.

    Args:
        report: The report.
        title: What was evaluated: "Test" gives the line "Test mAP".
        file: Where to print; None is standard output.
        width: Columns; None takes the terminal's, at least 80.
    """
    console = open_console(file, width=width)
    unicode = shows_unicode(console)
    console.print(tag_table(report, unicode=unicode).to_rich())
    main, *others = summary_lines(report, title=title, unicode=unicode)
    console.print(main, style="bold")
    for line in others:
        console.print(line)
    for note in report.notes:
        console.print(Text.assemble(("Note:", "yellow"), f" {note}"))


def tag_table(report: Report, *, unicode: bool = True) -> Table:
    """Return a table of one row per tag, sorted by average precision, best first.

    It shows clips, average precision and its interval, ROC-AUC and F1, and the thresholds in
    the column `cut` if any differs from 0.5. Tags without average precision come last,
    with the reason in place of the bar. In a single-label table, classes are sorted by
    recall (the accuracy of the class), best first.

    Args:
        report: The report.
        unicode: Draw the bars with block characters; otherwise with `#`.
    """
    single = report.task == SINGLE_LABEL
    main = "recall" if single else "AP"
    headings = _headings(report)
    table = Table(
        ["class" if single else "tag", *headings, BAR_HEADING],
        right=headings,
        fixed=[BAR_HEADING],
        dense=True,
    )
    for row in by_recall(report) if single else by_average_precision(report):
        cells = _cells(row, unicode)
        value = row.recall if single else row.average_precision
        table.add_row(
            row.name,
            *(Cell(cells[h], "bold" if h == main else "") for h in headings),
            row.undefined if math.isnan(value) else Cell(score_bar(value, unicode), "cyan"),
        )
    return table


def _headings(report: Report) -> tuple[str, ...]:
    """Return the headings between the name and the bar."""
    if report.task == SINGLE_LABEL:
        return ("clips", "AP", "95 % CI", "precision", "F1", "recall")
    headings = ("pos/clips", "chance", "AP", "95 % CI")
    # With the column of thresholds, 80 columns hold OpenMIC's longest name only if the
    # heading of ROC-AUC is shorter.
    return (
        *headings,
        *(("AUC", "F1", "cut") if report.has_own_thresholds else ("ROC-AUC", "F1")),
    )


def _cells(row: TagRow, unicode: bool) -> dict[str, str]:
    values = {
        "chance": row.chance,
        "AP": row.average_precision,
        "ROC-AUC": row.roc_auc,
        "AUC": row.roc_auc,
        "precision": row.precision,
        "F1": row.f1,
        "recall": row.recall,
    }
    return {heading: _number(value) for heading, value in values.items()} | {
        "clips": f"{row.positive}",
        "pos/clips": f"{row.positive}/{row.annotated}",
        "95 % CI": _interval(row.average_precision_low, row.average_precision_high, unicode),
        "cut": f"{row.threshold:.2f}".removeprefix("0"),
    }


def summary_lines(report: Report, *, title: str = "Test", unicode: bool = True) -> list[str]:
    """Return the macro and micro metrics with their chance levels, one line each.

    The first line has the main metric of the task: mAP, or accuracy for single-label.

    Args:
        report: The report.
        title: What was evaluated, the first word.
        unicode: Use a dash in intervals; otherwise a hyphen.
    """
    macro, micro = report.summary["macro"], report.summary["micro"]
    counts, chance = report.summary["counts"], report.summary["chance"]
    clips = count(int(counts["clips"]), "clip")

    def with_interval(metrics: dict[str, float], key: str) -> str:
        low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
        interval = _interval(low, high, unicode, digits=3)
        return _number(metrics[key]) + (f" ({interval})" if interval else "")

    ranking = with_interval(macro, "average_precision")
    if report.task == SINGLE_LABEL:
        single = report.summary["single_label"]
        return [
            f"{title} accuracy {with_interval(single, 'accuracy')}"
            f"  chance {_number(chance['accuracy'])}",
            f"macro accuracy {with_interval(single, 'macro_accuracy')}"
            f"  chance {_number(chance['macro_accuracy'])}"
            f"  log loss {_number(single['log_loss'])}",
            f"macro  mAP {ranking}  ROC-AUC {_number(macro['roc_auc'])}"
            f"  F1 {_number(macro['f1'])}",
            f"{clips}, {count(int(counts['tags']), 'class', 'classes')}",
        ]
    at_half = f"macro F1 with a threshold of 0.5 for every tag {_number(macro['f1_at_half'])}"
    return [
        f"{title} mAP {ranking}  chance {_number(report.chance_level)}",
        f"macro  ROC-AUC {with_interval(macro, 'roc_auc')}  F1 {_number(macro['f1'])}"
        f"  precision {_number(macro['precision'])}  recall {_number(macro['recall'])}",
        *([at_half] if report.has_own_thresholds else []),
        f"micro  AP {_number(micro['average_precision'])}"
        f"  ROC-AUC {_number(micro['roc_auc'])}  F1 {_number(micro['f1'])}",
        f"{clips}, {count(int(counts['tags']), 'tag')}, "
        f"{count(int(counts['annotated']), 'known label')}, {counts['positive']:,} positive",
    ]


def by_recall(report: Report) -> list[TagRow]:
    """Return the rows by recall, best first; those without recall come last."""
    return _by_falling(report, [row.recall for row in report.tags])


def by_average_precision(report: Report) -> list[TagRow]:
    """Return the rows by average precision, best first; those without it come last."""
    return _by_falling(report, [row.average_precision for row in report.tags])


def _by_falling(report: Report, values: list[float]) -> list[TagRow]:
    order = sorted(
        range(len(values)),
        key=lambda tag: math.inf if math.isnan(values[tag]) else -values[tag],
    )
    return [report.tags[tag] for tag in order]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(low: float, high: float, unicode: bool, digits: int = 2) -> str:
    if math.isnan(low):
        return ""
    return f"{low:.{digits}f}{'–' if unicode else '-'}{high:.{digits}f}"  # noqa: RUF001 (a range)
