"""Plots of a report: per-tag bars and precision-recall curves.

Figures are made without pyplot, so nothing global changes and any thread may plot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import precision_recall_curve

from rfkeras.errors import ConfigError
from rfkeras.evaluation.inputs import BoolArray, FloatArray, check_scored
from rfkeras.evaluation.result import Report, TagRow
from rfkeras.evaluation.table import by_average_precision
from rfkeras.plot_style import (
    BLUE,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    bare,
    label,
    new_figure,
)

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
