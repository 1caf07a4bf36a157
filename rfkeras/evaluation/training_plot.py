"""Training curves from the columns of a training log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rfkeras.errors import ConfigError
from rfkeras.evaluation.inputs import FloatArray
from rfkeras.evaluation.plot_style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    bare,
    label,
    new_figure,
)

# Panels from top to bottom: axis title, share of the height, and (column, label, colour).
_PANELS = (
    ("loss", 3.0, (("loss", "training", BLUE), ("val_loss", "validation", ORANGE))),
    ("validation mAP", 3.0, (("val_mAP", "", GREEN),)),
    ("learning rate", 1.2, (("learning_rate", "", GREY),)),
)
COLUMNS = ("loss", "val_loss", "val_mAP", "learning_rate")


def training_curves(history: Mapping[str, Sequence[float | str]]) -> Figure:
    """Loss, validation mAP and learning rate by epoch, the best epoch marked.

    The best epoch has the highest val_mAP; without that column, the lowest val_loss.

    Args:
        history: Columns of equal length by name: loss, val_loss, val_mAP, learning_rate,
            at least one of them, and epoch (else epochs count from 1). Cells may be text,
            as a CSV reader gives them; empty ones are gaps. Other columns are ignored.

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
    best = _best(values)
    for place, (title, _, lines) in enumerate(panels):
        axes = figure.add_subplot(grid[place, 0])
        _panel(axes, title, epochs, [(values[c], n, k) for c, n, k in lines if c in values])
        axes.tick_params(labelbottom=place == len(panels) - 1)
        if best is not None:
            axes.axvline(epochs[best], color=INK, linewidth=0.9, linestyle=(0, (2, 3)))
            if title == "validation mAP":
                axes.plot(
                    epochs[best],
                    values["val_mAP"][best],
                    "o",
                    color=INK,
                    markersize=5,
                    clip_on=False,
                )
        if place == len(panels) - 1:
            axes.set_xlabel("epoch", fontsize=9.5, color=INK)
    label(figure, 0.15 / width, 1 - 0.12 / height, "Training", 13, bold=True)
    if best is not None:
        name = "val_mAP" if "val_mAP" in values else "val_loss"
        shown = {"val_mAP": "validation mAP", "val_loss": "validation loss"}[name]
        text = f"dotted: best epoch, {epochs[best]:g}, with {shown} {values[name][best]:.3f}"
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
    low, high = axes.get_ylim()
    apart = 0.09 * (high - low)
    previous = -np.inf
    for value, name, colour in sorted(ends):
        previous = max(value, previous + apart)
        axes.annotate(
            name,
            (1.0, previous),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=colour,
            va="center",
        )


def _best(values: Mapping[str, FloatArray]) -> int | None:
    for name, sign in (("val_mAP", 1.0), ("val_loss", -1.0)):
        if name in values:
            column = sign * values[name]
            return None if np.isnan(column).all() else int(np.nanargmax(column))
    return None


def _numbers(name: str, column: Sequence[float | str]) -> FloatArray:
    try:
        return np.array([np.nan if cell == "" else float(cell) for cell in column])
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Column {name!r} of the training log must hold numbers. Received: {error}."
        ) from error
