"""Plots of a report: bars and curves of the tags, confusion matrix, training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from sklearn.isotonic import isotonic_regression
from sklearn.metrics import precision_recall_curve

from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import BoolArray, FloatArray, check_scored
from rfkeras.evaluation.report_table import by_average_precision
from rfkeras.evaluation.result import Report, TagRow
from rfkeras.utils.plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    add_axes,
    name_rows,
    new_figure,
    shades_of,
    style_axes,
)
from rfkeras.utils.text import shorten

_ROWS_PER_COLUMN = 40
_ROW_INCHES = 0.24


def per_tag_bars(report: Report) -> Figure:
    """Draw the average precision of each tag, best first, with interval and chance level.

    Many tags take several columns of one figure, read down and then across.

    Args:
        report: The report.
    """
    rows = by_average_precision(report)
    columns = math.ceil(len(rows) / _ROWS_PER_COLUMN)
    rows_per_column = math.ceil(len(rows) / columns)
    shown_rows = max(rows_per_column, 3)
    width = 7.4 if columns == 1 else 5.6 * columns
    header, footer, panel_height = 0.95, 0.6, _ROW_INCHES * shown_rows
    whisker = "whisker: 95 % confidence interval      "
    figure = new_figure(
        width,
        header + footer + panel_height,
        "Average precision by tag",
        f"{whisker if report.summary['bootstrap']['samples'] > 0 else ''}"
        "orange tick: chance      dashed: mean of the tags"
        f" (mAP {report.mean_average_precision:.3f}, chance {report.chance_level:.3f})",
    )
    names_inches = 0.35 + 0.075 * min(32, max(len(row.name) for row in rows))
    panel_width = width / columns - names_inches - 0.95
    for column in range(columns):
        left = column * width / columns + names_inches
        axes = add_axes(figure, left, footer, panel_width, panel_height)
        first = column * rows_per_column
        _bar_column(axes, rows[first : first + rows_per_column], shown_rows, report)
    return figure


def _bar_column(axes: Axes, rows: list[TagRow], shown_rows: int, report: Report) -> None:
    style_axes(axes, grid="x", x_label="average precision")
    axes.set_xlim(0, 1)
    axes.set_ylim(shown_rows - 0.4, -0.6)
    name_rows(axes, [row.name for row in rows])
    mean = report.mean_average_precision
    if not math.isnan(mean):
        axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=2.5)

    def write_right(place: float, text: str, align: str) -> None:
        transform = axes.get_yaxis_transform()
        axes.text(1.03, place, text, transform=transform, fontsize=7, color=GREY, va=align)

    write_right(-0.75, "positives\n/ clips", "bottom")
    for place, row in enumerate(rows):
        write_right(place, f"{row.positive:,} / {row.annotated:,}", "center")
        if math.isnan(row.average_precision):
            axes.text(0.01, place, row.undefined, fontsize=8, color=GREY, va="center")
            continue
        axes.barh(place, row.average_precision, height=0.66, color=BLUE, alpha=0.75)
        axes.plot(
            [row.chance] * 2, [place - 0.4, place + 0.4], color=ORANGE, linewidth=2, zorder=4
        )
        if not math.isnan(row.average_precision_low):
            bounds = [row.average_precision_low, row.average_precision_high]
            axes.plot(bounds, [place] * 2, color=INK, linewidth=1.2, zorder=3)


_PANEL_TITLE_CHARACTERS = 17


def precision_recall_curves(
    report: Report, scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> Figure:
    """Draw a small precision-recall panel for each tag, best first.

    The area under each stepped curve is the tag's average precision. The grey curve, the same
    in every panel, pools all tags.

    Args:
        report: The report that `evaluate` returned for these arrays.
        scores: (clips, classes) finite numbers.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.

    Raises:
        ConfigError: An array has a wrong shape or value, or does not fit the report.
    """
    scored = check_scored(scores, labels, mask)
    if scored.scores.shape[1] != len(report.tags):
        raise ConfigError(
            f"The scores must have the report's {len(report.tags)} classes. "
            f"Received: {scored.scores.shape[1]}."
        )
    tags = {row.name: tag for tag, row in enumerate(report.tags)}
    rows = by_average_precision(report)
    pooled = None
    if len(rows) > 1 and scored.labels.any():
        pooled = _curve(scored.labels[scored.mask], scored.scores[scored.mask])
    columns = min(len(rows), max(5, math.ceil(math.sqrt(len(rows)))))
    lines = math.ceil(len(rows) / columns)
    panel = 4.2 if len(rows) == 1 else 1.75
    width = max(5.4, 0.75 + panel * columns)
    height = 1.15 + 0.6 + panel * lines
    figure = new_figure(
        width,
        height,
        "Precision and recall by tag",
        "blue: this tag, with its average precision"
        f"{'      grey: all tags pooled' if pooled is not None else ''}      orange: chance",
    )
    grid = figure.add_gridspec(
        lines,
        columns,
        left=0.65 / width,
        right=1 - 0.15 / width,
        bottom=0.55 / height,
        top=1 - 1.05 / height,
        wspace=0.12,
        hspace=0.28,
    )
    titles = panel_titles([row.name for row in rows], _PANEL_TITLE_CHARACTERS)
    for position, (row, title) in enumerate(zip(rows, titles, strict=True)):
        axes = figure.add_subplot(grid[position // columns, position % columns])
        curve = None
        if not math.isnan(row.average_precision):
            tag = tags[row.name]
            known = scored.mask[:, tag]
            curve = _curve(scored.labels[known, tag], scored.scores[known, tag])
        _curve_panel(axes, title, row, curve, pooled)
        axes.tick_params(
            labelleft=position % columns == 0, labelbottom=position + columns >= len(rows)
        )
    figure.supxlabel("recall", fontsize=9.5, color=INK, y=0.1 / height)
    figure.supylabel("precision", fontsize=9.5, color=INK, x=0.12 / width)
    return figure


def panel_titles(names: Sequence[str], characters: int) -> list[str]:
    """Return the tags' names, each with at most that many characters.

    MTG-Jamendo's tags are named "category---tag". If one is too long, all lose the category.
    """
    if any(len(name) > characters for name in names):
        names = [name.rpartition("---")[2] for name in names]
    return [shorten(name, characters) for name in names]


def _curve(labels: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return recall and precision, with one point per recall."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    # The point (recall 0, precision 1) is a convention and belongs to no threshold.
    precision[-1] = precision[-2]
    # Of several thresholds with one recall, AP counts the last, which is the best.
    kept = np.concatenate([np.diff(recall) != 0, [True]])
    return recall[kept], precision[kept]


def _curve_panel(
    axes: Axes,
    title: str,
    row: TagRow,
    curve: tuple[FloatArray, FloatArray] | None,
    pooled: tuple[FloatArray, FloatArray] | None,
) -> None:
    style_axes(axes, grid="both")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.set_title(title, fontsize=8.5, color=INK, loc="left", pad=3, parse_math=False)
    if curve is None:
        axes.text(0.5, 0.5, row.undefined, fontsize=8, color=GREY, ha="center", va="center")
        return
    if pooled is not None:
        axes.plot(*pooled, color=GREY, alpha=0.55, linewidth=0.9, drawstyle="steps-post")
    axes.axhline(row.chance, color=ORANGE, linewidth=1.2)
    axes.plot(*curve, color=BLUE, linewidth=1.6, drawstyle="steps-post")
    axes.fill_between(*curve, step="post", color=BLUE, alpha=0.12, linewidth=0)
    axes.set_title(f"{row.average_precision:.2f}", fontsize=8.5, color=BLUE, loc="right", pad=3)


_DARK = 0.7  # share from which white text is easier to read than black
_NAME_CHARACTERS = 24
_CHARACTER_INCHES = 0.072
_CELL_INCHES = ((12, 0.62), (30, 0.38), (10**6, 0.26))  # (up to this many classes, width)


def confusion_matrix(report: Report) -> Figure:
    """Draw the number of clips by true class (rows) and predicted class (columns).

    The darkness of a cell is its share of the row's clips. The cell shows the number of clips
    and, with few classes, the share too. A class without clips has an empty row.

    Args:
        report: A single-label report.

    Raises:
        ConfigError: The report is of a multi-label task.
    """
    if report.confusion is None:
        raise ConfigError(
            "A confusion matrix needs a single-label report. Received one of task "
            f"{report.task!r}."
        )
    counts = np.array(report.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [shorten(row.name, _NAME_CHARACTERS) for row in report.tags]
    cell = next(inches for most, inches in _CELL_INCHES if len(names) <= most)
    longest = _CHARACTER_INCHES * max(len(name) for name in names)
    level = longest < cell  # the names fit below their columns
    side, left, header = cell * len(names), longest + 0.55, 0.85
    below = 0.62 if level else 0.5 + longest
    figure = new_figure(
        max(left + side + 0.75, 4.6),
        header + side + below,
        "Confusion matrix",
        "number of clips; colour: share of the row      "
        f"accuracy {report.summary['single_label']['accuracy']:.3f}",
    )
    axes = add_axes(figure, left, below, side, side)
    axes.imshow(shares, cmap=shades_of(BLUE), vmin=0, vmax=1, aspect="auto")
    style_axes(axes, x_label="predicted class", y_label="true class", label_size=9.5)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=0 if level else 90, parse_math=False)
    axes.set_yticks(places, names, parse_math=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(GREY)
        spine.set_linewidth(0.8)
    for row in places:
        for column in places:
            _cell(axes, row, column, int(counts[row, column]), float(shares[row, column]), cell)
    return figure


def _cell(axes: Axes, row: int, column: int, count: int, share: float, inches: float) -> None:
    colour = "white" if share > _DARK else INK if count else GREY
    roomy = inches > 0.5
    if not count and not roomy:
        return  # a large matrix is easier to read without its zeros

    def write(place: float, text: str, size: float) -> None:
        axes.text(column, place, text, ha="center", va="center", fontsize=size, color=colour)

    size = 9.5 if roomy else 16 * inches if count < 1000 else 12 * inches
    write(row - (0.13 if roomy and count else 0), f"{count}", size)
    if roomy and count:
        write(row + 0.24, f"{share:.0%}", 6.5)


# Panels from top to bottom: axis title, share of the height, and (column, label, colour).
_PANELS = (
    ("loss", 3.0, (("loss", "training", BLUE), ("val_loss", "validation", ORANGE))),
    (
        "validation",
        3.0,
        (
            ("val_mAP", "mAP", GREEN),
            ("val_roc_auc", "ROC-AUC", BLUE),
            ("val_f1", "F1", PURPLE),
            ("val_accuracy", "accuracy", ORANGE),
        ),
    ),
    ("learning rate", 1.2, (("learning_rate", "", GREY),)),
)
COLUMNS = tuple(column for _, _, lines in _PANELS for column, _, _ in lines)
_METRIC_NAMES = {
    column: f"{name} loss" if title == "loss" else f"{title} {name}"
    for title, _, lines in _PANELS[:2]
    for column, name, _ in lines
}


def training_curves(
    history: Mapping[str, Sequence[float | str]],
    monitor: str | None = None,
    first_epoch: int = 1,
) -> Figure:
    """Draw loss, validation metrics and learning rate by epoch, and mark the best epoch.

    Args:
        history: Columns of equal length by name: at least one of loss, val_loss, val_mAP,
            val_roc_auc, val_f1, val_accuracy and learning_rate. Without a column epoch,
            epochs count from 1. Cells may be text, as a CSV reader returns them; empty cells
            leave gaps. Other columns are ignored.
        monitor: Column that selects the best epoch: the lowest value of a loss, the highest
            of any other. None takes val_mAP or, without that column, val_loss.
        first_epoch: First epoch that may be the best. A pruned model reaches its final size
            there.

    Raises:
        ConfigError: None of these columns is present, columns differ in length, there is no
            epoch, or a cell is not a number.
    """
    values = {
        name: _numbers(name, history[name]) for name in ("epoch", *COLUMNS) if name in history
    }
    lengths = {len(column) for column in values.values()}
    if not set(values) & set(COLUMNS) or len(lengths) != 1 or 0 in lengths:
        raise ConfigError(
            f"Training curves need columns of equal length, at least one of {COLUMNS}. "
            f"Received: { {name: len(column) for name, column in history.items()} }."
        )
    epochs = values.get("epoch", np.arange(1.0, lengths.pop() + 1))
    panels = [panel for panel in _PANELS if any(column in values for column, _, _ in panel[2])]
    shares = [share for _, share, _ in panels]
    width, height = 7.6, 1.5 + 0.72 * sum(shares)
    name = monitor or ("val_mAP" if "val_mAP" in values else "val_loss")
    best, caption = None, ""
    if name in _METRIC_NAMES and name in values:
        best = _best(values[name], name.endswith("loss"), epochs >= first_epoch)
    if best is not None:
        score = f"{_METRIC_NAMES[name]} {values[name][best]:.3f}"
        caption = f"dotted: best epoch, {epochs[best]:g}, with {score}"
    figure = new_figure(width, height, "Training", caption)
    grid = figure.add_gridspec(
        len(panels),
        1,
        height_ratios=shares,
        left=0.85 / width,
        right=1 - 0.95 / width,
        bottom=0.55 / height,
        top=1 - 0.8 / height,
        hspace=0.22,
    )
    for place, (title, _, lines) in enumerate(panels):
        axes = figure.add_subplot(grid[place, 0])
        _panel(axes, title, epochs, [(values[c], n, k) for c, n, k in lines if c in values])
        axes.tick_params(labelbottom=place == len(panels) - 1)
        if best is not None:
            axes.axvline(epochs[best], color=INK, linewidth=0.9, linestyle=(0, (2, 3)))
            if name in [column for column, _, _ in lines]:
                at = (epochs[best], values[name][best])
                axes.plot(*at, "o", color=INK, markersize=5, clip_on=False)
        if place == len(panels) - 1:
            axes.set_xlabel("epoch", fontsize=9.5, color=INK)
    return figure


def _panel(
    axes: Axes, title: str, epochs: FloatArray, lines: list[tuple[FloatArray, str, str]]
) -> None:
    style_axes(axes, grid="both", y_label=title, label_size=9.5)
    marker = "o" if len(epochs) <= 30 else ""
    for column, _, colour in lines:
        axes.plot(
            epochs,
            column,
            color=colour,
            linewidth=1.7,
            marker=marker,
            markersize=3,
            clip_on=False,
        )
    margin = 0.02 * float(epochs[-1] - epochs[0]) or 0.5
    axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.1)
    low_panel = title == "learning rate"
    if all((column[~np.isnan(column)] >= 0).all() for column, _, _ in lines):
        axes.set_ylim(bottom=0 if low_panel else max(0.0, axes.get_ylim()[0]))
    axes.yaxis.set_major_locator(MaxNLocator(3 if low_panel else 6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_label_coords(-0.11, 0.5)
    _label_ends(axes, epochs, lines)


def _label_ends(
    axes: Axes, epochs: FloatArray, lines: list[tuple[FloatArray, str, str]]
) -> None:
    """Label the lines at their right ends, with the labels apart even where lines meet."""
    ends = []
    for column, name, colour in lines:
        defined = np.flatnonzero(~np.isnan(column))
        if name and defined.size:
            ends.append((float(column[defined[-1]]), name, colour))
    if not ends:
        return
    ends.sort()
    low, high = axes.get_ylim()
    steps = 0.09 * (high - low) * np.arange(len(ends))
    # Least squares: as near to the ends of the lines as names one step apart can be.
    places = isotonic_regression([value for value, _, _ in ends] - steps) + steps
    for place, (_, name, colour) in zip(places, ends, strict=True):
        axes.annotate(
            name,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=colour,
            va="center",
        )


def _best(column: FloatArray, lowest: bool, eligible: BoolArray) -> int | None:
    values = np.where(eligible, -column if lowest else column, np.nan)
    return None if np.isnan(values).all() else int(np.nanargmax(values))


def _numbers(name: str, column: Sequence[float | str]) -> FloatArray:
    try:
        return np.array([np.nan if cell == "" else float(cell) for cell in column])
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Column {name!r} of the training log must hold numbers. Received: {error}."
        ) from error
