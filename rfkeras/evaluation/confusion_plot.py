"""The confusion matrix of a single-label report as a picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from rfkeras.errors import ConfigError
from rfkeras.evaluation.inputs import FloatArray
from rfkeras.evaluation.result import Report
from rfkeras.plot_style import BLUE, GREY, INK, bare, label, new_figure

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
