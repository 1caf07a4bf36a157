"""The sweep's picture: test figure against receptive field, a line a variant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from rfkeras.plot_style import (
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
    save_png,
)
from rfkeras.sweep.results import Point

Size = tuple[int, int]  # receptive field along time and frequency, in pixels

# Line, marker and colour of each variant, so that a print in grey can be read too.
_STYLES = (
    ("-", "o", BLUE),
    ("--", "s", ORANGE),
    (":", "^", GREEN),
    ("-.", "D", PURPLE),
    ("-", "v", GREY),
    ("--", "P", INK),
)
_LEGEND = "Marker: mean over seeds; thick bar: all seeds; thin bar: 95 % interval over clips"
_PANEL_WIDTH, _PANEL_HEIGHT, _TOP, _BOTTOM = 4.6, 3.2, 0.95, 0.7  # inches
_COLUMNS = 2


def write_plot(path: Path, points: Sequence[Point], subtitle: str = "") -> None:
    """Write the picture as PNG."""
    save_png(sweep_figure(points, subtitle), path)


def sweep_figure(points: Sequence[Point], subtitle: str = "") -> Figure:
    """mAP against receptive field, a panel a test.

    A marker is the mean over seeds, the thick bar its seeds from lowest to highest, the thin
    bar the 95 % interval over clips. The axis below is in pixels, the one above in seconds.

    Args:
        points: Of `summarise`.
        subtitle: What was trained, under the title.
    """
    tests = list(dict.fromkeys(point.test for point in points))
    variants = list(dict.fromkeys(point.variant for point in points))
    columns = min(_COLUMNS, len(tests))
    rows = -(-len(tests) // columns)
    width = max(columns * _PANEL_WIDTH, 6.4)
    height = rows * _PANEL_HEIGHT + _TOP
    figure = new_figure(width, height)
    label(figure, 0.02, 1 - 0.12 / height, "Receptive field and mAP", 13, bold=True)
    label(figure, 0.02, 1 - 0.40 / height, subtitle, 8.5, colour=GREY)
    label(figure, 0.02, 1 - 0.56 / height, _LEGEND, 8.5, colour=GREY)
    for number, test in enumerate(tests):
        row, column = divmod(number, columns)
        left = (column * width / columns + 0.62) / width
        bottom = 1 - (_TOP + (row + 1) * _PANEL_HEIGHT - _BOTTOM) / height
        size = ((width / columns - 0.85) / width, (_PANEL_HEIGHT - 1.45) / height)
        axes = figure.add_axes((left, bottom, *size))
        _panel(axes, [p for p in points if p.test == test], variants)
        axes.set_title(test, loc="left", fontsize=10, color=INK, fontweight="bold", pad=32)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(0.012, 1 - 0.72 / height),
        ncols=len(variants),
        frameon=False,
        fontsize=9,
    )
    return figure


def _panel(axes: Axes, points: Sequence[Point], variants: Sequence[str]) -> None:
    bare(axes)
    axes.grid(axis="y", color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    fields = {(p.rf_time_pixels, p.rf_frequency_pixels): p for p in points}
    square = all(time == frequency for time, frequency in fields)
    if square:  # sizes on a scale
        axes.set_xscale("log")
        places = {size: float(size[0]) for size in fields}
    else:  # shapes side by side, the smallest area first
        places = {size: 1.0 + i for i, size in enumerate(sorted(fields, key=math.prod))}
    for number, variant in enumerate(variants):
        line, marker, colour = _STYLES[number % len(_STYLES)]
        mine = [point for point in points if point.variant == variant]
        # Beside one another, so that the bars of the variants do not hide each other.
        beside = number - (len(variants) - 1) / 2
        x = [places[p.rf_time_pixels, p.rf_frequency_pixels] for p in mine]
        x = [at * (1 + 0.035 * beside) if square else at + 0.08 * beside for at in x]
        axes.plot(
            x, [p.mAP for p in mine], line, marker=marker, ms=5, color=colour, label=variant
        )
        axes.vlines(x, [p.mAP_low for p in mine], [p.mAP_high for p in mine], colour, lw=0.8)
        lowest, highest = [p.seed_lowest for p in mine], [p.seed_highest for p in mine]
        axes.vlines(x, lowest, highest, colour, lw=3.5, alpha=0.45)
    _label_axes(axes, fields, places, square)


def _label_axes(
    axes: Axes, fields: Mapping[Size, Point], places: Mapping[Size, float], square: bool
) -> None:
    """Pixels below, seconds above."""
    above = axes.secondary_xaxis("top")
    below_names = [str(t) if square else f"{t} x {f}" for t, f in fields]
    above_names = [f"{point.rf_time_ms / 1000:.1f} s" for point in fields.values()]
    for axis, names in ((axes, below_names), (above, above_names)):
        axis.xaxis.set_major_locator(FixedLocator([places[size] for size in fields]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels(names)
    shape = "" if square else ", time x frequency"
    axes.set_xlabel(f"receptive field (spectrogram pixels{shape})", fontsize=8.5, color=INK)
    axes.set_ylabel("mAP", fontsize=8.5, color=INK)
    above.tick_params(labelsize=8, colors=GREY, width=0.8, length=3)
    above.spines["top"].set_color(GREY)
