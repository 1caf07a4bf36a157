"""Training curves from the columns of a training log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.isotonic import isotonic_regression

from rfkeras.errors import ConfigError
from rfkeras.evaluation.inputs import BoolArray, FloatArray
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
)

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
