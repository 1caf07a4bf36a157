"""The style that all plots share, and how a figure is saved.

Positions and sizes are in inches, so that a figure can grow with its content. The colours are
from the Okabe-Ito palette, which can be distinguished with every kind of colour vision.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from rfkeras.utils.files import atomic_write

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GREY, LIGHT = "#222222", "#6B6B6B", "#E4E4E4"

_DOTS_PER_INCH = 150
_LEFT, _TITLE_TOP, _CAPTION_TOP, _LINE = 0.15, 0.12, 0.42, 0.17  # inches
_LONG_NAME = 32  # characters; longer names are set smaller


def new_figure(
    width_inches: float, height_inches: float, title: str = "", *captions: str
) -> Figure:
    """Return an empty white figure that is rendered to pixels with any backend.

    Args:
        width_inches: Width.
        height_inches: Height. A title takes 0.4 inches at the top, each caption 0.17 more.
        title: Bold title in the upper left corner.
        *captions: Small grey lines below it.
    """
    figure = Figure(figsize=(width_inches, height_inches), facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        add_text(figure, _LEFT, _TITLE_TOP, title, 13, colour=INK, bold=True)
    for number, caption in enumerate(captions):
        add_text(figure, _LEFT, _CAPTION_TOP + number * _LINE, caption)
    return figure


def add_text(
    figure: Figure,
    left_inches: float,
    top_inches: float,
    text: str,
    size: float = 8.5,
    *,
    colour: str = GREY,
    bold: bool = False,
    align: str = "left",
) -> None:
    """Write text at a distance below the top of the figure.

    Args:
        figure: The figure.
        left_inches: Distance of the aligned side from the left edge.
        top_inches: Distance from the top edge.
        text: The text.
        size: Font size in points.
        colour: Colour.
        bold: Use bold type.
        align: "left" or "right".
    """
    width, height = figure.get_size_inches()
    weight = "bold" if bold else "normal"
    x, y = left_inches / width, 1 - top_inches / height
    figure.text(
        x,
        y,
        text,
        fontsize=size,
        color=colour,
        fontweight=weight,
        va="top",
        ha=align,
        parse_math=False,  # file names and tags may have "$" in them
    )


def add_axes(
    figure: Figure, left: float, bottom: float, width: float, height: float, **options: Any
) -> Axes:
    """Add axes at a place in inches from the lower left corner of the figure."""
    across, up = figure.get_size_inches()
    place = (left / across, bottom / up, width / across, height / up)
    return figure.add_axes(place, **options)


def style_axes(
    axes: Axes,
    *,
    grid: Literal["", "x", "y", "both"] = "",
    x_label: str = "",
    y_label: str = "",
    label_size: float = 9,
) -> None:
    """Keep only thin lower and left frame lines, and add a light grid and labels.

    Args:
        axes: The axes.
        grid: Axes with grid lines.
        x_label: Label of the x axis.
        y_label: Label of the y axis.
        label_size: Font size of both labels in points.
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(GREY)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=INK, labelsize=8, width=0.8, length=3)
    if grid:
        axes.grid(True, axis=grid, color=LIGHT, linewidth=0.8)
        axes.set_axisbelow(True)
    if x_label:
        axes.set_xlabel(x_label, fontsize=label_size, color=INK)
    if y_label:
        axes.set_ylabel(y_label, fontsize=label_size, color=INK)


def name_rows(axes: Axes, names: Sequence[str], size: float = 8.5) -> None:
    """Name rows 0, 1, 2, ... of the y axis, showing any "$" in a name literally."""
    axes.set_yticks(range(len(names)))
    axes.tick_params(axis="y", length=0)
    for text, name in zip(axes.set_yticklabels(list(names)), names, strict=True):
        text.set_parse_math(False)
        text.set_fontsize(size if len(name) <= _LONG_NAME else 6)


def set_x_ticks(axes: Any, places: Sequence[float], names: Sequence[str]) -> None:
    """Set the ticks of an x axis, on a logarithmic scale too."""
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(list(names))


def add_top_axis(
    axes: Axes, places: Sequence[float], names: Sequence[str], label: str = "", size: float = 8
) -> None:
    """Add a grey x axis at the top, with other names for places of the lower one."""
    top = axes.secondary_xaxis("top")
    set_x_ticks(top, places, names)
    top.tick_params(labelsize=size, colors=GREY, width=0.8, length=3)
    top.spines["top"].set_color(GREY)
    top.set_xlabel(label, fontsize=size + 0.5, color=GREY)


def shades_of(colour: str) -> LinearSegmentedColormap:
    """Return the colour map from white to a colour."""
    return LinearSegmentedColormap.from_list("shades", ["white", colour])


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG atomically."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)
