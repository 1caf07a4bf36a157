"""The plots: size and ink of the files, the values drawn, and no overlapping text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.metrics import average_precision_score

from rfkeras.errors import ConfigError
from rfkeras.evaluation.plots import (
    panel_titles,
    per_tag_bars,
    precision_recall_curves,
    training_curves,
)
from rfkeras.evaluation.report import evaluate
from rfkeras.utils.plotting import BLUE, ORANGE, save_png
from tests.helpers.plots import has_colour, texts_overlap

HISTORY = {
    "epoch": [1, 2, 3, 4],
    "loss": [0.6, 0.5, 0.4, 0.35],
    "val_loss": [0.62, 0.52, 0.45, 0.44],
    "val_mAP": [0.2, 0.5, 0.7, 0.6],
    "learning_rate": [1e-3, 1e-3, 5e-4, 0],
}


def example(tags: int, clips: int = 300):
    """Return a report of random scores, and the scores, labels and mask."""
    rng = np.random.default_rng(tags)
    labels = rng.random((clips, tags)) < rng.uniform(0.05, 0.5, tags)
    labels[0] = True
    scores = rng.random((clips, tags)) + rng.uniform(0.1, 1, tags) * labels
    mask = rng.random((clips, tags)) < 0.7
    mask[0] = True
    names = [f"mood/theme---longish{i}" for i in range(tags)]
    report = evaluate(scores / 2, labels, mask, label_names=names, bootstrap_samples=20)
    return report, scores / 2, labels, mask


@pytest.mark.parametrize("tags", [1, 20, 56])
def test_plots_are_images_with_ink_for_1_20_and_56_tags(tags, tmp_path):
    report, *arrays = example(tags)
    for figure in (per_tag_bars(report), precision_recall_curves(report, *arrays)):
        save_png(figure, tmp_path / "plot.png")
        image = imread(tmp_path / "plot.png")
        height, width = image.shape[:2]
        assert (width, height) == tuple(np.floor(figure.get_size_inches() * 150).astype(int))
        assert 700 < width < 2800
        assert 200 < height < 2800
        assert 0.01 < (image[..., :3].min(axis=-1) < 0.95).mean() < 0.6
        assert has_colour(image, ORANGE) >= 20 * tags


@pytest.mark.parametrize("tags", [1, 20, 56])
def test_no_text_overlaps_another_or_leaves_the_figure(tags):
    report, *arrays = example(tags)
    assert texts_overlap(per_tag_bars(report)) == []
    assert texts_overlap(precision_recall_curves(report, *arrays)) == []


def test_bars_whiskers_and_ticks_show_the_report(partly_labelled):
    report = evaluate(*partly_labelled, label_names=list("abcdef"), bootstrap_samples=20)
    axes = per_tag_bars(report).axes[0]
    drawn = [bar.get_width() for bar in axes.patches]
    rows = {row.name: row for row in report.tags}
    order = [label.get_text() for label in axes.get_yticklabels()]
    assert order[-2:] == ["d", "f"]
    assert drawn == [rows[name].average_precision for name in order[:-2]]
    lines = [line.get_xdata() for line in axes.lines]
    assert list(lines[0]) == [report.mean_average_precision] * 2
    for place, name in enumerate(order[:-2]):
        row = rows[name]
        assert list(lines[1 + 2 * place]) == [row.chance] * 2
        whisker = [row.average_precision_low, row.average_precision_high]
        assert list(lines[2 + 2 * place]) == whisker
    shown = [text.get_text() for text in axes.texts]
    assert "no positives" in shown
    assert "not annotated" in shown


def test_195_tags_are_all_shown_in_several_columns():
    report, *_ = example(195, clips=40)
    figure = per_tag_bars(report)
    names = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert len(figure.axes) == 5
    assert sorted(names) == sorted(row.name for row in report.tags)


def test_area_under_each_drawn_curve_is_the_average_precision():
    report, scores, labels, mask = example(6)
    figure = precision_recall_curves(report, scores, labels, mask)
    for axes, row in zip(
        figure.axes, sorted(report.tags, key=lambda row: -row.average_precision), strict=True
    ):
        curve = next(line for line in axes.lines if line.get_color() == BLUE)
        recall, precision = curve.get_data()
        assert recall[0] == 1
        assert recall[-1] == 0
        # Steps: the precision at a recall holds down to the next lower recall.
        area = -np.sum(np.diff(recall) * precision[:-1])
        assert area == pytest.approx(row.average_precision)
        assert axes.get_title(loc="right") == f"{row.average_precision:.2f}"


def test_grey_curve_pools_all_annotated_labels():
    report, scores, labels, mask = example(3)
    axes = precision_recall_curves(report, scores, labels, mask).axes[0]
    recall, precision = axes.lines[0].get_data()
    expected = average_precision_score(labels[mask], scores[mask])
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(expected)


def test_undefined_tags_have_an_empty_panel_with_the_reason(partly_labelled):
    report = evaluate(*partly_labelled, label_names=list("abcdef"), bootstrap_samples=0)
    panels = precision_recall_curves(report, *partly_labelled).axes
    assert [text.get_text() for axes in panels[-2:] for text in axes.texts] == [
        "no positives",
        "not annotated",
    ]
    assert all(not axes.lines for axes in panels[-2:])


def test_a_report_without_defined_metrics_can_be_plotted():
    zeros = np.zeros((3, 2))
    report = evaluate(zeros, zeros, label_names=["a", "b"], bootstrap_samples=5)
    assert math.isnan(report.mean_average_precision)
    assert len(per_tag_bars(report).axes) == 1
    assert len(precision_recall_curves(report, zeros, zeros).axes) == 2


def test_arrays_that_do_not_fit_the_report_are_rejected():
    report, *_ = example(3)
    with pytest.raises(ConfigError, match=r"report's 3 classes\. Received: 2"):
        precision_recall_curves(report, np.zeros((4, 2)), np.zeros((4, 2)))


def test_dollar_signs_in_a_tag_are_not_a_formula(tmp_path):
    labels = [[1], [0]]
    report = evaluate([[0.7], [0.2]], labels, label_names=["$a_$"], bootstrap_samples=0)
    save_png(per_tag_bars(report), tmp_path / "bars.png")
    save_png(precision_recall_curves(report, [[0.7], [0.2]], labels), tmp_path / "curves.png")
    assert {path.name for path in tmp_path.iterdir()} == {"bars.png", "curves.png"}


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (["flute", "mallet_percussion"], ["flute", "mallet_percussion"]),
        (
            ["mood/theme---epic", "mood/theme---calm"],
            ["mood/theme---epic", "mood/theme---calm"],
        ),
        (["mood/theme---epic", "mood/theme---meditative"], ["epic", "meditative"]),
        (["a name far too long to show", "short"], ["a name far too l…", "short"]),
    ],
)
def test_panel_titles_are_shortened_alike(names, titles):
    assert panel_titles(names, 17) == titles


@pytest.mark.parametrize("epochs", [1, 4, 200])
def test_training_curves_are_an_image_without_overlap(epochs, tmp_path):
    history = {name: np.resize(column, epochs).tolist() for name, column in HISTORY.items()} | {
        "epoch": list(range(1, epochs + 1))
    }
    figure = training_curves(history)
    assert len(figure.axes) == 3
    assert texts_overlap(figure) == []
    save_png(figure, tmp_path / "training.png")
    image = imread(tmp_path / "training.png")
    assert image.shape[1] == 1140
    assert 1000 <= image.shape[0] <= 1005
    assert has_colour(image, BLUE) > 10


@pytest.mark.parametrize("ends", [(0.5, 0.5, 0.5, 0.5), (0.9, 0.8, 0.1, 0.11), (0, 0, 1, 1)])
def test_all_validation_metrics_share_a_panel_in_different_colours(ends):
    names = ("val_mAP", "val_roc_auc", "val_f1", "val_accuracy")
    columns = {name: [0.2, 0.3, 0.4, end] for name, end in zip(names, ends, strict=True)}
    figure = training_curves({**HISTORY, **columns, "seconds": [10.0, 20.0, 30.0, 40.0]})
    assert len(figure.axes) == 3
    panel = figure.axes[1]
    for line, name in zip(panel.lines, names, strict=False):
        assert list(line.get_ydata()) == columns[name]
    assert len({line.get_color() for line in panel.lines[:4]}) == 4
    shown = {text.get_text(): text.xy[1] for text in panel.texts}
    assert set(shown) == {"mAP", "ROC-AUC", "F1", "accuracy"}
    assert texts_overlap(figure) == []
    # The names stay near their lines: their mean does not drift.
    assert np.mean(list(shown.values())) == pytest.approx(np.mean(ends), abs=1e-9)


def test_undefined_metrics_leave_gaps():
    history = {
        "val_mAP": ["0.1", "0.2"],
        "val_roc_auc": ["nan", "nan"],
        "val_f1": ["nan", "0.1"],
    }
    panel = training_curves(history).axes[0]
    assert [text.get_text() for text in panel.texts] == ["F1", "mAP"]


def test_training_curves_draw_the_log_and_mark_the_best_map():
    figure = training_curves(HISTORY)
    losses, means, rates = figure.axes
    assert list(losses.lines[0].get_ydata()) == HISTORY["loss"]
    assert list(losses.lines[1].get_ydata()) == HISTORY["val_loss"]
    assert list(means.lines[0].get_ydata()) == HISTORY["val_mAP"]
    assert list(rates.lines[0].get_ydata()) == HISTORY["learning_rate"]
    assert [axes.lines[-1].get_xdata()[0] for axes in (losses, rates)] == [3, 3]
    assert list(means.lines[-1].get_data()) == [[3], [0.7]]
    assert any("best epoch, 3, with validation mAP 0.700" in t.get_text() for t in figure.texts)


@pytest.mark.parametrize(
    ("monitor", "first_epoch", "panel", "best", "shown"),
    [
        ("val_f1", 1, 1, (2, 0.6), "best epoch, 2, with validation F1 0.600"),
        ("val_loss", 1, 0, (4, 0.44), "best epoch, 4, with validation loss 0.440"),
        ("loss", 1, 0, (4, 0.35), "best epoch, 4, with training loss 0.350"),
        ("val_mAP", 4, 1, (4, 0.6), "best epoch, 4, with validation mAP 0.600"),
    ],
)
def test_the_monitored_metric_selects_the_best_epoch(monitor, first_epoch, panel, best, shown):
    history = {**HISTORY, "val_f1": [0.1, 0.6, 0.5, float("nan")]}
    figure = training_curves(history, monitor, first_epoch)
    assert any(shown in text.get_text() for text in figure.texts)
    marks = [
        (place, tuple(float(part[0]) for part in line.get_data()))
        for place, axes in enumerate(figure.axes)
        for line in axes.lines
        if line.get_markersize() == 5
    ]
    assert marks == [(panel, best)]


@pytest.mark.parametrize(("monitor", "first_epoch"), [("val_accuracy", 1), ("val_mAP", 9)])
def test_without_the_metric_or_an_eligible_epoch_none_is_marked(monitor, first_epoch):
    figure = training_curves(HISTORY, monitor, first_epoch)
    assert not any("best epoch" in text.get_text() for text in figure.texts)


def test_without_map_the_lowest_validation_loss_is_best_and_text_cells_are_read():
    figure = training_curves(
        {"epoch": ["0", "1", "2"], "loss": ["3", "2", "1"], "val_loss": ["", "0.5", "0.7"]}
    )
    assert len(figure.axes) == 1
    assert any(
        "best epoch, 1, with validation loss 0.500" in t.get_text() for t in figure.texts
    )


def test_without_validation_no_epoch_is_marked():
    figure = training_curves({"loss": [3, 2, 1]})
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ({"epoch": [1, 2]}, "at least one of"),
        ({"loss": []}, "equal length"),
        ({"loss": [1, 2], "val_loss": [1]}, "'val_loss': 1"),
        ({"loss": ["low"]}, "Column 'loss' .* must hold numbers"),
    ],
)
def test_malformed_histories_are_rejected(history, says):
    with pytest.raises(ConfigError, match=says):
        training_curves(history)
