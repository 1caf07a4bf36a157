"""The look that the plots share, and how a figure becomes a file.

Colours are from the Okabe-Ito palette, told apart with every kind of colour vision.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rfkeras.utils.files import replacing

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GREY, LIGHT = "#222222", "#6B6B6B", "#E4E4E4"

_DOTS_PER_INCH = 150


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty white figure that draws to a raster, whatever backend is set."""
    figure = Figure(figsize=(width_inches, height_inches), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def bare(axes: Axes) -> None:
    """Leave of the frame only the thin lower and left lines."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(GREY)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=INK, labelsize=8, width=0.8, length=3)


def label(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    size: float,
    *,
    colour: str = INK,
    bold: bool = False,
) -> None:
    """Write text with its upper left corner at (x, y), in shares of the figure."""
    weight = "bold" if bold else "normal"
    figure.text(x, y, text, fontsize=size, color=colour, fontweight=weight, va="top")


def save_png(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)
