"""The confusion matrix of a single-label report as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from sklearn.isotonic import isotonic_regression
from sklearn.metrics import precision_recall_curve

from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import BoolArray, FloatArray, check_scored
from rfkeras.evaluation.result import Report, TagRow
from rfkeras.evaluation.table import by_average_precision
from rfkeras.utils.plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PURPLE,
    bare,
    label,
    new_figure,
)

_SHADES = LinearSegmentedColormap.from_list("white to blue", ["#FFFFFF", BLUE])
_DARK = 0.7  # share from which white text is told better than black
_NAME_CHARACTERS = 24
_CHARACTER_INCHES = 0.072
# Up to so many classes, a cell is so wide.
_CELL_INCHES = ((12, 0.62), (30, 0.38), (10**6, 0.26))


def confusion_matrix(report: Report) -> Figure:
    """Clips by true class (rows) and by the class they were taken for (columns).

    A cell is as dark as its share of the row's clips and shows their number, and with
    few classes the share too. A class without clips has an empty row.

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
    names = [_short(row.name) for row in report.tags]
    cell = next(inch for most, inch in _CELL_INCHES if len(names) <= most)
    longest = _CHARACTER_INCHES * max(len(name) for name in names)
    side = cell * len(names)
    left, header = longest + 0.55, 0.85
    below = 0.62 if _fit_level(names, cell) else 0.5 + longest
    width, height = max(left + side + 0.75, 4.6), header + side + below
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, below / height, side / width, side / height))
    axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    _name_axes(axes, names, level=_fit_level(names, cell))
    for row in range(len(names)):
        for column in range(len(names)):
            _cell(axes, row, column, counts, shares, cell)
    accuracy = report.summary["single_label"]["accuracy"]
    at = 0.15 / width
    label(figure, at, 1 - 0.12 / height, "Confusion matrix", 13, bold=True)
    key = f"number of clips; colour: share of the row      accuracy {accuracy:.3f}"
    label(figure, at, 1 - 0.42 / height, key, 8.5, colour=GREY)
    return figure


def _cell(
    axes: Axes, row: int, column: int, counts: FloatArray, shares: FloatArray, inches: float
) -> None:
    count, share = int(counts[row, column]), float(shares[row, column])
    colour = "white" if share > _DARK else INK if count else GREY
    roomy = inches > 0.5
    if not count and not roomy:
        return  # a large matrix is read by its marks, not by its zeros
    size = 9.5 if roomy else 16 * inches if count < 1000 else 12 * inches
    place = row - (0.13 if roomy and count else 0)
    axes.text(column, place, f"{count}", ha="center", va="center", fontsize=size, color=colour)
    if roomy and count:
        axes.text(
            column,
            row + 0.24,
            f"{share:.0%}",
            ha="center",
            va="center",
            fontsize=6.5,
            color=colour,
        )


def _name_axes(axes: Axes, names: list[str], level: bool) -> None:
    bare(axes)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=0 if level else 90, parse_math=False)
    axes.set_yticks(places, names, parse_math=False)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color(GREY)
        side.set_linewidth(0.8)
    axes.set_xlabel("taken for", fontsize=9.5, color=INK)
    axes.set_ylabel("true class", fontsize=9.5, color=INK)


def _fit_level(names: list[str], cell_inches: float) -> bool:
    """Whether the names fit under their columns without being turned."""
    return max(len(name) for name in names) * _CHARACTER_INCHES < cell_inches


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"


_ROWS_A_COLUMN = 40
_ROW_INCHES = 0.24
_TITLE_CHARACTERS = 17


def per_tag_bars(report: Report) -> Figure:
    """Average precision of each tag, best first, with its interval and chance level.

    Many tags are laid out in several columns of one figure, read down and then across.

    Args:
        report: What to show.
    """
    rows = by_average_precision(report)
    columns = math.ceil(len(rows) / _ROWS_A_COLUMN)
    deep = math.ceil(len(rows) / columns)
    width = 1.0 + 6.4 * columns if columns == 1 else 5.6 * columns
    header, footer = 0.95, 0.6
    height = header + footer + _ROW_INCHES * max(deep, 3)
    figure = new_figure(width, height)
    longest = min(32, max(len(row.name) for row in rows))
    names_inches = 0.35 + 0.075 * longest
    for column in range(columns):
        left = (column * width / columns + names_inches) / width
        right = ((column + 1) * width / columns - 0.95) / width
        axes = figure.add_axes(
            (left, footer / height, right - left, 1 - (header + footer) / height)
        )
        _bar_column(axes, rows[column * deep : (column + 1) * deep], max(deep, 3), report)
    inch = 1 / height
    label(figure, 0.15 / width, 1 - 0.12 * inch, "Average precision by tag", size=13, bold=True)
    interval = report.summary["bootstrap"]["samples"] > 0
    key = "whisker: 95 % confidence interval      " if interval else ""
    label(
        figure,
        0.15 / width,
        1 - 0.42 * inch,
        f"{key}orange tick: chance      dashed: mean of the tags"
        f" (mAP {report.mean_average_precision:.3f}, chance {report.chance_level:.3f})",
        size=8.5,
        colour=GREY,
    )
    return figure


def precision_recall_curves(
    report: Report, scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> Figure:
    """A small precision-recall panel for each tag, best first.

    The area under each stepped curve is the tag's average precision. All tags pooled give
    the grey curve, the same in every panel.

    Args:
        report: What `evaluate` returned for these arrays.
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
            f"Received {scored.scores.shape[1]}."
        )
    number = {row.name: tag for tag, row in enumerate(report.tags)}
    rows = by_average_precision(report)
    pooled = None
    if len(rows) > 1 and scored.labels.any():
        pooled = _curve(scored.labels[scored.mask], scored.scores[scored.mask])
    columns = min(len(rows), max(5, math.ceil(math.sqrt(len(rows)))))
    deep = math.ceil(len(rows) / columns)
    panel = 4.2 if len(rows) == 1 else 1.75
    width = max(5.4, 0.75 + panel * columns)
    height = 1.15 + 0.6 + panel * deep
    figure = new_figure(width, height)
    grid = figure.add_gridspec(
        deep,
        columns,
        left=0.65 / width,
        right=1 - 0.15 / width,
        bottom=0.55 / height,
        top=1 - 1.05 / height,
        wspace=0.12,
        hspace=0.28,
    )
    titles = panel_titles([row.name for row in rows], _TITLE_CHARACTERS)
    for position, (row, title) in enumerate(zip(rows, titles, strict=True)):
        axes = figure.add_subplot(grid[position // columns, position % columns])
        known = scored.mask[:, number[row.name]]
        curve = None
        if not math.isnan(row.average_precision):
            tag = number[row.name]
            curve = _curve(scored.labels[known, tag], scored.scores[known, tag])
        _curve_panel(axes, title, row, curve, pooled)
        axes.tick_params(
            labelleft=position % columns == 0, labelbottom=position + columns >= len(rows)
        )
    inch = 1 / height
    label(figure, 0.15 / width, 1 - 0.12 * inch, "Precision and recall by tag", 13, bold=True)
    key = "blue: this tag, with its average precision"
    key += "      grey: all tags pooled" if pooled is not None else ""
    label(figure, 0.15 / width, 1 - 0.42 * inch, f"{key}      orange: chance", 8.5, colour=GREY)
    figure.supxlabel("recall", fontsize=9.5, color=INK, y=0.1 * inch)
    figure.supylabel("precision", fontsize=9.5, color=INK, x=0.12 / width)
    return figure


def panel_titles(names: Sequence[str], characters: int) -> list[str]:
    """The names of the tags, each at no more than that many characters.

    MTG-Jamendo's tags read "category---tag": where one is too long all lose the category.
    """
    if any(len(name) > characters for name in names):
        names = [name.rpartition("---")[2] for name in names]
    return [name if len(name) <= characters else name[: characters - 1] + "…" for name in names]


def _bar_column(axes: Axes, rows: list[TagRow], deep: int, report: Report) -> None:
    bare(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(deep - 0.4, -0.6)
    axes.xaxis.grid(True, color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("average precision", fontsize=9, color=INK)
    axes.set_yticks(range(len(rows)))
    for text, row in zip(axes.set_yticklabels([row.name for row in rows]), rows, strict=True):
        text.set_parse_math(False)
        text.set_fontsize(8.5 if len(row.name) <= 32 else 6)
    axes.tick_params(axis="y", length=0)
    mean = report.mean_average_precision
    if not math.isnan(mean):
        axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=2.5)
    counts = axes.get_yaxis_transform()
    axes.text(
        1.03, -0.75, "positives\n/ clips", transform=counts, fontsize=7, color=GREY, va="bottom"
    )
    for place, row in enumerate(rows):
        axes.text(
            1.03,
            place,
            f"{row.positive:,} / {row.annotated:,}",
            transform=counts,
            fontsize=7,
            color=GREY,
            va="center",
        )
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


def _curve(labels: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    precision, recall, _ = precision_recall_curve(labels, scores)
    # The point (recall 0, precision 1) is a convention, not a threshold of this model.
    precision[-1] = precision[-2]
    # Of the thresholds with one recall the last is the best, and the one that AP counts.
    kept = np.concatenate([np.diff(recall) != 0, [True]])
    return recall[kept], precision[kept]


def _curve_panel(
    axes: Axes,
    title: str,
    row: TagRow,
    curve: tuple[FloatArray, FloatArray] | None,
    pooled: tuple[FloatArray, FloatArray] | None,
) -> None:
    bare(axes)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.grid(True, color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
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


_SHOWN = {
    column: f"{name} loss" if title == "loss" else f"{title} {name}"
    for title, _, lines in _PANELS[:2]
    for column, name, _ in lines
}


def training_curves(
    history: Mapping[str, Sequence[float | str]],
    monitor: str | None = None,
    first_epoch: int = 1,
) -> Figure:
    """Loss, validation figures and learning rate by epoch, the best epoch marked.

    Args:
        history: Columns of equal length by name: loss, val_loss, val_mAP, val_roc_auc,
            val_f1, val_accuracy, learning_rate, at least one of them, and epoch (else
            epochs count from 1). Cells may be text, as a CSV reader gives them; empty ones
            are gaps. Other columns are ignored.
        monitor: Column that tells the best epoch, by the lowest value of a loss and the
            highest of the rest; None: val_mAP or, without that column, val_loss.
        first_epoch: The first epoch that may be the best; a pruned model is not in its
            final form before.

    Raises:
        ConfigError: None of these columns, columns of different length, no epochs, or a
            cell that is not a number.
    """
    values = {
        name: _numbers(name, history[name]) for name in ("epoch", *COLUMNS) if name in history
    }
    lengths = {len(column) for column in values.values()}
    if not set(values) & set(COLUMNS) or len(lengths) != 1 or 0 in lengths:
        raise ConfigError(
            f"Training curves need columns of equal length, at least one of {COLUMNS}. "
            f"Received { {name: len(column) for name, column in history.items()} }."
        )
    epochs = values.get("epoch", np.arange(1.0, lengths.pop() + 1))
    panels = [panel for panel in _PANELS if any(column in values for column, _, _ in panel[2])]
    shares = [share for _, share, _ in panels]
    width, height = 7.6, 1.5 + 0.72 * sum(shares)
    figure = new_figure(width, height)
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
    name = monitor or ("val_mAP" if "val_mAP" in values else "val_loss")
    best = None
    if name in _SHOWN and name in values:
        best = _best(values[name], name.endswith("loss"), epochs >= first_epoch)
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
    label(figure, 0.15 / width, 1 - 0.12 / height, "Training", 13, bold=True)
    if best is not None:
        shown = f"{_SHOWN[name]} {values[name][best]:.3f}"
        text = f"dotted: best epoch, {epochs[best]:g}, with {shown}"
        label(figure, 0.15 / width, 1 - 0.42 / height, text, 8.5, colour=GREY)
    return figure


def _panel(
    axes: Axes, title: str, epochs: FloatArray, lines: list[tuple[FloatArray, str, str]]
) -> None:
    bare(axes)
    axes.grid(True, color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel(title, fontsize=9.5, color=INK)
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
    """Name the lines at their right ends, apart even where the lines meet."""
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
    # As near to the lines' ends, in least squares, as names a step apart can stand.
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
