"""The report: metrics, files and notes."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.evaluation.bootstrap import bootstrap_intervals
from rfkeras.evaluation.metrics import (
    average_precision,
    decision_metrics,
    positive_rate,
    roc_auc,
)
from rfkeras.evaluation.report import evaluate, write_report
from rfkeras.evaluation.result import Report, TagRow

NAMES = ("a", "b", "c", "none", "all", "blank")


@pytest.fixture
def report(partly_labelled) -> Report:
    """Return a report of random scores."""
    return evaluate(*partly_labelled, label_names=NAMES, bootstrap_samples=40, seed=3)


def test_rows_have_metrics_counts_and_intervals_of_each_tag(report, partly_labelled):
    scores, labels, mask = partly_labelled
    shares = decision_metrics(scores >= 0.5, labels, mask)
    intervals = bootstrap_intervals(*partly_labelled, samples=40, seed=3)
    for tag in range(3):
        row = report.tags[tag]
        assert (row.name, row.annotated) == (NAMES[tag], mask[:, tag].sum())
        assert row.positive == labels[mask[:, tag], tag].sum()
        assert row.chance == row.positive / row.annotated
        assert row.average_precision == average_precision(*partly_labelled).values[tag]
        assert row.roc_auc == roc_auc(*partly_labelled).values[tag]
        assert row.f1 == shares.f1.values[tag]
        assert row.precision == shares.precision.values[tag]
        assert row.recall == shares.recall.values[tag]
        bounds = [row.average_precision_low, row.average_precision_high]
        assert bounds == intervals.average_precision[tag].tolist()
        assert [row.roc_auc_low, row.roc_auc_high] == intervals.roc_auc[tag].tolist()
        assert row.threshold == 0.5


def test_summary_has_macro_micro_chance_and_numbers_of_tags(report, partly_labelled):
    _, labels, mask = partly_labelled
    assert report.mean_average_precision == average_precision(*partly_labelled).macro
    assert report.chance_level == positive_rate(labels, mask).macro
    macro = report.summary["macro"]
    assert macro["average_precision_low"] < macro["average_precision"]
    assert macro["average_precision"] < macro["average_precision_high"]
    assert report.summary["tags_in_macro"] == {
        "average_precision": 4,
        "roc_auc": 3,
        "f1": 4,
        "precision": 4,
        "recall": 4,
    }
    assert report.summary["counts"] == {
        "clips": 200,
        "tags": 6,
        "annotated": mask.sum(),
        "positive": labels[mask].sum(),
    }
    assert report.summary["bootstrap"] == {"samples": 40, "seed": 3, "confidence": 0.95}


def test_left_out_tags_are_named(report):
    assert report.notes == (
        "No average precision or F1 for 2 of 6 tags, which the macro mean leaves out: "
        "none (no positives), blank (not annotated).",
        "No ROC-AUC for 3 of 6 tags, which the macro mean leaves out: none (no positives), "
        "all (no negatives), blank (not annotated).",
    )
    assert [row.undefined for row in report.tags][3:] == [
        "no positives",
        "no negatives",
        "not annotated",
    ]


def test_a_note_names_at_most_eight_tags():
    report = evaluate(
        np.zeros((2, 12)),
        np.zeros((2, 12)),
        label_names=[f"t{i}" for i in range(12)],
        bootstrap_samples=0,
    )
    assert report.notes[0].endswith("t7 (no positives) and 4 more.")
    assert math.isnan(report.mean_average_precision)


def test_tags_missing_from_some_resamples_are_noted():
    labels = np.zeros((30, 1))
    labels[4] = 1
    report = evaluate(np.linspace(0, 1, 30)[:, None], labels, label_names=["rare"])
    assert "some resamples had none" in report.notes[0]
    assert "rare (" in report.notes[0]


def test_scores_that_are_not_probabilities_are_noted_if_a_threshold_decides():
    logits, labels = [[-2.0], [3.0]], [[0], [1]]
    options = {"label_names": ["a"], "bootstrap_samples": 0}
    assert "from -2 to 3" in evaluate(logits, labels, **options).notes[0]
    assert evaluate(logits, labels, decisions=labels, **options).notes == ()


def test_given_decisions_replace_the_threshold(partly_labelled):
    scores, labels, mask = partly_labelled
    report = evaluate(
        scores, labels, mask, label_names=NAMES, decisions=labels, bootstrap_samples=0
    )
    assert report.summary["macro"]["f1"] == 1
    assert report.summary["micro"]["f1"] == 1
    assert all(math.isnan(row.threshold) for row in report.tags)


def test_thresholds_per_tag_are_in_the_rows(partly_labelled):
    thresholds = np.linspace(0.2, 0.7, 6)
    report = evaluate(
        *partly_labelled, label_names=NAMES, threshold=thresholds, bootstrap_samples=0
    )
    assert [row.threshold for row in report.tags] == thresholds.tolist()


def test_json_has_every_metric_and_null_for_undefined(report, tmp_path):
    report.to_json(tmp_path / "new" / "report.json")
    text = (tmp_path / "new" / "report.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=pytest.fail)  # NaN is not JSON
    rows = tuple(
        TagRow(**{key: math.nan if cell is None else cell for key, cell in row.items()})
        for row in content["tags"]
    )
    assert content["tags"][5]["average_precision"] is None
    for row, expected in zip(rows, report.tags, strict=True):
        np.testing.assert_equal(dataclasses.asdict(row), dataclasses.asdict(expected))
    assert content["summary"] == report.summary
    assert tuple(content["notes"]) == report.notes


def test_csv_has_every_row_and_empty_cells_for_undefined(report, tmp_path):
    report.to_csv(tmp_path / "per_tag.csv")
    with (tmp_path / "per_tag.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[5]["average_precision"] == ""
    assert [row["name"] for row in rows] == list(NAMES)
    for cells, expected in zip(rows, report.tags, strict=True):
        for key, value in dataclasses.asdict(expected).items():
            if isinstance(value, float):
                np.testing.assert_equal(float(cells[key] or "nan"), value)
            else:
                assert cells[key] == str(value)


def test_write_report_writes_exactly_these_files(report, partly_labelled, tmp_path):
    history = {"epoch": ["1", "2"], "loss": ["0.5", "0.4"], "val_mAP": ["", "0.3"]}
    written = write_report(report, tmp_path, *partly_labelled, history=history)
    names = {"report.json", "per_tag.csv", "scores.npz", "per_tag.png", "precision_recall.png"}
    assert {path.name for path in tmp_path.iterdir()} == names | {"training.png"}
    assert set(written) == set(tmp_path.iterdir())


@pytest.mark.parametrize("history", [None, {}, {"epoch": [], "loss": []}])
def test_without_epochs_there_is_no_training_plot(report, partly_labelled, tmp_path, history):
    written = write_report(report, tmp_path, *partly_labelled, history=history)
    assert "training.png" not in {path.name for path in written}
    assert len(written) == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label_names": ["a"]}, "must have 2 names, one per class. Received: 1"),
        ({"label_names": ["a", "a"]}, "Repeated: a"),
        ({"label_names": ["a", "b"], "decisions": [[0, 1]]}, "decisions must have the shape"),
        ({"label_names": ["a", "b"], "decisions": [[0, 1], [3, 0]]}, "decisions must be 0 or"),
        ({"label_names": ["a", "b"], "threshold": [0.1] * 3}, "threshold must be"),
        ({"label_names": ["a", "b"], "bootstrap_samples": -3}, "samples must be 0 or more"),
    ],
)
def test_wrong_arguments_are_rejected(options, says):
    with pytest.raises(ConfigError, match=says):
        evaluate([[0.1, 0.2], [0.3, 0.4]], [[0, 1], [1, 0]], **options)


def test_matplotlib_loads_only_for_plots_and_tensorflow_never_loads():
    program = (
        "import sys, rfkeras.evaluation; light = {'sklearn', 'numpy'} & set(sys.modules);"
        "import rfkeras.evaluation.report, rfkeras.evaluation.report_table;"
        "import rfkeras.cli.evaluate;"
        "heavy = {'matplotlib', 'tensorflow', 'keras'} & set(sys.modules);"
        "import rfkeras.evaluation.plots;"
        "heavy |= {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules);"
        "sys.exit(f'{light} {heavy}' if light | heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_f1_is_reported_at_one_half_and_at_the_given_thresholds(partly_labelled):
    thresholds = np.linspace(0.2, 0.7, 6)
    own = evaluate(
        *partly_labelled, label_names=NAMES, threshold=thresholds, bootstrap_samples=0
    )
    half = evaluate(*partly_labelled, label_names=NAMES, bootstrap_samples=0)
    assert half.summary["macro"]["f1"] == half.summary["macro"]["f1_at_half"]
    assert own.summary["macro"]["f1_at_half"] == half.summary["macro"]["f1"]
    assert own.summary["macro"]["f1"] != half.summary["macro"]["f1"]
    assert (own.has_own_thresholds, half.has_own_thresholds) == (True, False)
    logits = evaluate([[-2.0], [3.0]], [[0], [1]], label_names=["a"], bootstrap_samples=0)
    assert math.isnan(logits.summary["macro"]["f1_at_half"])
