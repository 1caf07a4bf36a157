"""Single-label reports: metrics compared with scikit-learn, files, table, plot and errors."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn import metrics

from rfkeras.errors import ConfigError
from rfkeras.evaluation.plots import confusion_matrix
from rfkeras.evaluation.report import class_metrics, evaluate, write_report
from rfkeras.evaluation.report_table import print_report
from rfkeras.utils.plotting import save_png
from tests.helpers.plots import texts_overlap

SCENES = tuple(
    "airport bus metro metro_station park public_square shopping_mall street_pedestrian "
    "street_traffic tram".split()
)


def example(classes: int, clips: int = 400, seed: int = 0):
    """Return softmax scores, one-hot labels and class numbers of classes of unequal size."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, clips, p=rng.dirichlet(np.full(classes, 5.0)))
    logits = rng.normal(size=(clips, classes)) + 1.5 * np.eye(classes)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores, np.eye(classes)[truth], truth


def single_report(classes: int, **options):
    """Return a single-label report of random scores, and the scores and labels."""
    scores, labels, _ = example(classes)
    names = options.pop("names", [f"class{i}" for i in range(classes)])
    settings = {"bootstrap_samples": 50, "task": "single_label", **options}
    return evaluate(scores, labels, label_names=names, **settings), scores, labels


def test_metrics_equal_scikit_learn():
    scores, labels, truth = example(5)
    chosen = scores.argmax(axis=1)
    ours = class_metrics(scores, labels)
    assert ours.accuracy == metrics.accuracy_score(truth, chosen)
    assert ours.macro_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(truth, chosen), abs=1e-12
    )
    assert ours.log_loss == pytest.approx(metrics.log_loss(truth, scores), rel=1e-9)
    np.testing.assert_array_equal(ours.confusion, metrics.confusion_matrix(truth, chosen))


def test_intervals_are_percentiles_over_the_drawn_clips():
    scores, labels, truth = example(4, clips=60)
    truth[0], labels[0] = 3, np.eye(4)[3]
    right = scores.argmax(axis=1) == truth
    generator = np.random.default_rng(7)
    accuracies, macros = [], []
    for _ in range(40):
        drawn = generator.integers(60, size=60)
        accuracies.append(right[drawn].mean())
        recalls = [right[drawn][truth[drawn] == c].mean() for c in np.unique(truth[drawn])]
        macros.append(np.mean(recalls))
    ours = class_metrics(scores, labels, samples=40, confidence=0.9, seed=7)
    np.testing.assert_allclose(ours.accuracy_interval, np.quantile(accuracies, [0.05, 0.95]))
    np.testing.assert_allclose(ours.macro_accuracy_interval, np.quantile(macros, [0.05, 0.95]))


def test_the_interval_has_the_documented_coverage():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        right = rng.random(200) < 0.7
        scores = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
        labels = np.tile([1, 0], (200, 1))
        low, high = class_metrics(scores, labels, samples=200).accuracy_interval
        held += low <= 0.7 <= high
    assert 88 <= held <= 100


def test_report_rows_and_summary():
    report, scores, labels = single_report(5)
    truth, chosen = labels.argmax(axis=1), scores.argmax(axis=1)
    single = report.summary["single_label"]
    assert single["accuracy"] == metrics.accuracy_score(truth, chosen)
    assert single["accuracy_low"] < single["accuracy"] < single["accuracy_high"]
    assert single["macro_accuracy"] == pytest.approx(report.summary["macro"]["recall"])
    assert report.summary["chance"]["accuracy"] == np.bincount(truth).max() / len(truth)
    assert report.summary["chance"]["macro_accuracy"] == 0.2
    assert report.summary["macro"]["f1"] == pytest.approx(
        metrics.f1_score(truth, chosen, average="macro")
    )
    assert "f1_at_half" not in report.summary["macro"]
    for c, row in enumerate(report.tags):
        assert row.recall == pytest.approx((chosen[truth == c] == c).mean())
        assert row.average_precision == pytest.approx(
            metrics.average_precision_score(truth == c, scores[:, c])
        )
        assert math.isnan(row.threshold)
    assert report.notes == ()


def test_chance_is_the_accuracy_of_a_constant_answer():
    report, _, labels = single_report(5)
    constant = np.tile(np.eye(5)[labels.sum(axis=0).argmax()], (len(labels), 1))
    reached = class_metrics(constant, labels)
    assert reached.accuracy == report.summary["chance"]["accuracy"]
    assert reached.macro_accuracy == report.summary["chance"]["macro_accuracy"]


def test_a_class_without_clips_is_left_out_with_a_note():
    scores, labels, _ = example(4)
    some = labels[:, 3] == 0
    report = evaluate(
        scores[some],
        labels[some],
        label_names=list("abcd"),
        task="single_label",
        bootstrap_samples=5,
    )
    assert report.summary["chance"]["macro_accuracy"] == pytest.approx(1 / 3)
    assert math.isnan(report.tags[3].recall)
    assert report.summary["single_label"]["macro_accuracy"] == pytest.approx(
        np.mean([row.recall for row in report.tags[:3]])
    )
    assert "d (no positives)" in report.notes[0]
    assert texts_overlap(confusion_matrix(report)) == []


def test_files_contain_the_confusion_matrix(tmp_path):
    report, scores, labels = single_report(3)
    written = write_report(report, tmp_path, scores, labels)
    assert {path.name for path in written} == {
        "report.json",
        "per_tag.csv",
        "scores.npz",
        "per_tag.png",
        "precision_recall.png",
        "confusion.png",
    }
    assert all(path.is_file() for path in written)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    truth, chosen = labels.argmax(axis=1), scores.argmax(axis=1)
    assert content["confusion"] == metrics.confusion_matrix(truth, chosen).tolist()
    assert content["task"] == "single_label"
    assert content["tags"][0]["threshold"] is None


def test_scores_that_do_not_sum_to_1_have_no_log_loss():
    scores, labels, _ = example(3)
    options = {"label_names": list("abc"), "task": "single_label", "bootstrap_samples": 0}
    sigmoids = evaluate(np.clip(1.5 * scores, 0, 1), labels, **options)
    logits = evaluate(np.log(scores), labels, **options)
    for report in (sigmoids, logits):
        assert math.isnan(report.summary["single_label"]["log_loss"])
        assert "no log loss" in report.notes[0]
    half = evaluate(scores.astype(np.float16), labels, **options)
    assert half.notes == ()
    assert (
        logits.summary["single_label"]["accuracy"] == half.summary["single_label"]["accuracy"]
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"decisions": np.eye(3)}, "highest score decides"),
        ({"threshold": 0.5}, "highest score decides"),
        ({"mask": np.eye(3)}, "mask must be 1 everywhere"),
        ({"task": "single"}, "Did you mean 'single_label'"),
    ],
)
def test_arguments_that_do_not_fit_the_task_are_rejected(options, says):
    settings = {"task": "single_label", "label_names": list("abc"), **options}
    with pytest.raises(ConfigError, match=says):
        evaluate(np.eye(3), np.eye(3), **settings)


def test_the_table_is_sorted_by_recall_and_ends_with_the_accuracy():
    report, *_ = single_report(10, names=SCENES)
    file = io.StringIO()
    print_report(report, file=file, title="Test")
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:8] == "class clips AP 95 % CI precision F1".split()
    shown = [line.split()[0] for line in lines[2:12]]
    assert shown == [row.name for row in sorted(report.tags, key=lambda row: -row.recall)]
    single = report.summary["single_label"]
    main = next(line for line in lines if line.startswith("Test"))
    assert main == (
        f"Test accuracy {single['accuracy']:.3f} ({single['accuracy_low']:.3f}–"  # noqa: RUF001
        f"{single['accuracy_high']:.3f})  chance {report.summary['chance']['accuracy']:.3f}"
    )
    assert lines.index(main) == 12
    assert f"log loss {single['log_loss']:.3f}" in lines[13]
    assert lines[15] == "400 clips, 10 classes"


def test_counts_and_shares_are_drawn_in_their_cells():
    report, truth, *_ = single_report(3, names=list("abc"))
    counts = np.array(report.confusion)
    texts = {}
    for text in confusion_matrix(report).axes[0].texts:
        column, row = text.get_position()
        texts[round(row), round(column), text.get_text()] = True
    for (row, column), count in np.ndenumerate(counts):
        assert (row, column, f"{count}") in texts
        share = f"{count / counts[row].sum():.0%}"
        assert ((row, column, share) in texts) == (count > 0)


@pytest.mark.parametrize(
    "names", [list("ab"), ["indoor", "outdoor", "transportation"], SCENES, ["$a_$", "b" * 60]]
)
def test_the_confusion_matrix_is_readable(names, tmp_path):
    report, *_ = single_report(len(names), names=names)
    figure = confusion_matrix(report)
    assert texts_overlap(figure) == []
    save_png(figure, tmp_path / "confusion.png")
    height, width = imread(tmp_path / "confusion.png").shape[:2]
    assert 600 < width < 1500
    assert 300 < height < 1500


def test_the_confusion_matrix_shows_counts_and_shades_of_the_rows():
    report, *_ = single_report(3)
    axes = confusion_matrix(report).axes[0]
    counts = np.array(report.confusion)
    shades = axes.images[0].get_array()
    np.testing.assert_allclose(shades, counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(shades.sum(axis=1), 1)
    shown = {text.get_position()[0]: text for text in axes.texts}
    assert len(shown) == 3
    texts = [text.get_text() for text in axes.texts]
    assert all(str(count) in texts for count in counts.ravel())
    assert f"{shades[1, 1]:.0%}" in texts


def test_fifty_classes_fit_and_zeros_are_blank():
    report, *_ = single_report(50)
    figure = confusion_matrix(report)
    counts = np.array(report.confusion)
    assert len(figure.axes[0].texts) == (counts > 0).sum()
    assert texts_overlap(figure) == []


def test_multi_label_reports_have_no_confusion_matrix():
    report = evaluate([[0.1]], [[1]], label_names=["a"], bootstrap_samples=0)
    assert report.confusion is None
    with pytest.raises(ConfigError, match="single-label report"):
        confusion_matrix(report)
