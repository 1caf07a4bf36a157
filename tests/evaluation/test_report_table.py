"""The printed report: order of rows, numbers, width and plain output."""

from __future__ import annotations

import io

import numpy as np
import pytest

from rfkeras.evaluation.report import evaluate
from rfkeras.evaluation.report_table import by_average_precision, print_report
from rfkeras.utils.table import score_bar

NAMES = ("accordion", "mallet_percussion", "[bold]odd", "none", "all", "blank")


def printed(report, encoding="utf-8", **options) -> str:
    """Return what is printed to a file of that encoding."""
    buffer = io.BytesIO()
    with io.TextIOWrapper(buffer, encoding=encoding) as file:
        print_report(report, file=file, **options)
        file.flush()
        return buffer.getvalue().decode(encoding)


@pytest.fixture
def report(partly_labelled):
    """Return a report of random scores."""
    return evaluate(*partly_labelled, label_names=NAMES, bootstrap_samples=30)


def test_rows_are_sorted_best_first_and_undefined_last(report):
    names = [row.name for row in by_average_precision(report)]
    values = [row.average_precision for row in by_average_precision(report)]
    assert names[-2:] == ["none", "blank"]
    assert values[:-2] == sorted(values[:-2], reverse=True)


def test_piped_output_is_plain_text_within_80_columns(report):
    text = printed(report)
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    row = report.tags[1]
    line = next(line for line in text.splitlines() if line.startswith("mallet_percussion"))
    interval = f"{row.average_precision_low:.2f}–{row.average_precision_high:.2f}"  # noqa: RUF001
    assert line.split() == [
        "mallet_percussion",
        f"{row.positive}/{row.annotated}",
        f"{row.chance:.3f}",
        f"{row.average_precision:.3f}",
        interval,
        f"{row.roc_auc:.3f}",
        f"{row.f1:.3f}",
        score_bar(row.average_precision),
    ]


def test_summary_shows_the_test_map_and_chance(report):
    text = printed(report, title="Validation")
    macro = report.summary["macro"]
    expected = (
        f"Validation mAP {macro['average_precision']:.3f} "
        f"({macro['average_precision_low']:.3f}–{macro['average_precision_high']:.3f})"  # noqa: RUF001
        f"  chance {report.chance_level:.3f}"
    )
    assert expected in text.splitlines()
    assert f"micro  AP {report.summary['micro']['average_precision']:.3f}" in text


def test_undefined_tags_show_the_reason_and_notes_are_printed(report):
    text = printed(report)
    last = next(line for line in text.splitlines() if line.startswith("blank"))
    assert last.split() == ["blank", "0/0", "-", "-", "-", "-", "not", "annotated"]
    assert "Note: No ROC-AUC for 3 of 6 tags" in text


def test_markup_in_a_tag_name_is_printed_literally(report):
    assert "[bold]odd" in printed(report)


def test_an_ascii_output_gets_plain_bars(report):
    text = printed(report, encoding="ascii")
    assert "###" in text


def test_without_bootstrap_no_interval_is_shown(partly_labelled):
    report = evaluate(*partly_labelled, label_names=NAMES, bootstrap_samples=0)
    assert f"Test mAP {report.mean_average_precision:.3f}  chance" in printed(report)


def test_195_tags_have_one_line_each():
    rng = np.random.default_rng(0)
    labels = rng.random((40, 195)) < 0.5
    labels[0] = True
    names = [f"tag{i:03d}" for i in range(195)]
    text = printed(
        evaluate(rng.random((40, 195)), labels, label_names=names, bootstrap_samples=5)
    )
    assert sum(line.startswith("tag") for line in text.splitlines()) == 196  # with the header


def test_counts_agree_in_number():
    text = printed(evaluate([[0.5]], [[1]], label_names=["a"], bootstrap_samples=0))
    assert "1 clip, 1 tag, 1 known label, 1 positive" in text


def test_thresholds_add_a_column_and_a_line_with_f1_at_one_half(partly_labelled, report):
    thresholds = [0.3, 0.45, 0.5, 0.5, 0.5, 0.5]
    own = evaluate(
        *partly_labelled, label_names=NAMES, threshold=thresholds, bootstrap_samples=30
    )
    text = printed(own)
    assert max(len(line) for line in text.splitlines()) <= 80
    line = next(line for line in text.splitlines() if line.startswith("mallet_percussion"))
    assert line.split()[-2] == ".45"
    at_half = own.summary["macro"]["f1_at_half"]
    assert f"macro F1 with a threshold of 0.5 for every tag {at_half:.3f}" in text
    assert "threshold" not in printed(report)
    assert " cut" not in printed(report)
