"""The exact receptive field, layer by layer, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.plot_style import (
    BLUE,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    bare,
    label,
    new_figure,
    save_png,
)
from rfkeras.receptive_field.result import FREQUENCY, ReceptiveField
from rfkeras.receptive_field.shown import map_layers
from rfkeras.receptive_field.units import SpectrogramScale

_MOST_NAMES = 48
_MOST_LETTERS = 40
_INCHES_A_LAYER, _INCHES_A_LETTER = 0.27, 0.054


def plot_layers(path: str | Path, field: ReceptiveField, title: str = "") -> None:
    """Write the picture of `layers_figure`; arguments and errors are the same.

    Args:
        path: Of the PNG.
        field: What `receptive_field(model)` returned.
        title: What the network is called.
    """
    save_png(layers_figure(field, title), path)


def layers_figure(field: ReceptiveField, title: str = "") -> Figure:
    """Draw the size of the receptive field after every layer, on both axes.

    The left scale is in pixels of the spectrogram (frames, mel bands). Where the front-end
    is known, a right one tells the milliseconds of audio that the frames cover, and a line
    the height of the spectrogram. Where an axis has no limit any more the ground is shaded.

    Args:
        field: What `receptive_field(model)` returned.
        title: What the network is called.

    Raises:
        ConfigError: There is no layer to show.
    """
    layers = map_layers(field)
    if not layers:
        raise ConfigError("No layer of this model has windows: there is nothing to draw.")
    columns = [[row.time for row in layers], [row.frequency for row in layers]]
    sizes = [
        np.array([np.nan if one is None else one.size for one in column], dtype=float)
        for column in columns[: len(field.axes)]
    ]
    names = [_shortened(row.name) for row in layers]
    below = 0.55 + _INCHES_A_LETTER * max(len(name) for name in names)
    width = 1.9 + max(4.2, _INCHES_A_LAYER * min(len(layers), _MOST_NAMES))
    height = 3.65 + below
    figure = new_figure(width, height)
    axes = figure.add_axes(
        (0.75 / width, below / height, 1 - 1.6 / width, 1 - (below + 0.9) / height)
    )
    _style(axes)
    top = _limits(axes, sizes, field)
    _shade_unlimited(axes, sizes, top)
    # Frequency is drawn over time, thin and broken: both stay visible where they are equal,
    # without colour too.
    units = ("pixels", "pixels") if field.scale is None else ("frames", "mel bands")
    _steps(axes, sizes[0], colour=BLUE, width=3.4, style="-", name=f"time ({units[0]})")
    if FREQUENCY in field.axes:
        name = f"frequency ({units[1]})"
        _steps(axes, sizes[1], colour=ORANGE, width=1.5, style=(0, (4, 2)), name=name)
    _name_layers(axes, names)
    if field.scale is not None:
        _mark_mel_bands(axes, field.scale.n_mels, top)
        _ms_axis(axes, field.scale)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncol=2,
        frameon=False,
        fontsize=8.5,
        handlelength=2.6,
        borderaxespad=0.1,
    )
    label(figure, 0.15 / width, 1 - 0.12 / height, title or "Receptive field", 12, bold=True)
    label(figure, 0.15 / width, 1 - 0.4 / height, _summary(field), 8.5, colour=GREY)
    return figure


def _shortened(name: str) -> str:
    """The end of a name, which tells most in nested models."""
    return name if len(name) <= _MOST_LETTERS else "..." + name[3 - _MOST_LETTERS :]


def _mark_mel_bands(axes: Axes, bands: int, top: float) -> None:
    """A line at the height of the whole spectrogram."""
    if bands > top:
        return
    axes.axhline(bands, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        f"all {bands} mel bands",
        (0.0, bands),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=8,
        color=GREY,
    )


def _style(axes: Axes) -> None:
    bare(axes)
    axes.grid(True, axis="y", color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel("receptive field (pixels)", fontsize=9.5, color=INK)


def _limits(axes: Axes, sizes: list[NDArray[np.float64]], field: ReceptiveField) -> float:
    """Set the scales; return the upper end of the vertical one."""
    known = np.concatenate(sizes)
    top = 1.06 * float(np.nanmax(known)) if np.isfinite(known).any() else 10.0
    if field.scale is not None and top > 0.75 * field.scale.n_mels:
        top = max(top, 1.08 * field.scale.n_mels)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlim(-0.6, len(sizes[0]) - 0.4)
    return top


def _steps(
    axes: Axes,
    sizes: NDArray[np.float64],
    *,
    colour: str,
    width: float,
    style: str | tuple[int, tuple[int, ...]],
    name: str,
) -> None:
    """One axis of the field: a step for every layer, a gap where it has no limit."""
    places = np.arange(len(sizes)) - 0.5
    axes.step(
        np.concatenate([places, [places[-1] + 1.0]]),
        np.concatenate([sizes, sizes[-1:]]),
        where="post",
        color=colour,
        linewidth=width,
        linestyle=style,
        label=name,
        solid_joinstyle="miter",
    )


def _shade_unlimited(axes: Axes, sizes: list[NDArray[np.float64]], top: float) -> None:
    """Shade the layers from which on an axis is without limit, and say which axis."""
    unlimited = [np.isnan(column) for column in sizes]
    both = np.logical_and.reduce(unlimited)
    parts = {"without limit": both}
    for name, one in zip(("time", "frequency"), unlimited, strict=False):
        parts[f"{name}: without limit"] = one & ~both
    for text, part in parts.items():
        places = np.flatnonzero(part)
        if not places.size:
            continue
        first, last = float(places[0]) - 0.5, float(places[-1]) + 0.5
        axes.axvspan(first, last, color=LIGHT, linewidth=0, zorder=0.5)
        axes.text(
            (first + last) / 2,
            top / 2,
            text,
            rotation=90 if last - first < 6 else 0,
            fontsize=9,
            color=INK,
            ha="center",
            va="center",
        )


def _name_layers(axes: Axes, names: list[str]) -> None:
    """Names under the steps; of a very deep network every second or third of them."""
    every = -(-len(names) // _MOST_NAMES)
    axes.set_xticks(range(0, len(names), every), names[::every])
    axes.tick_params(axis="x", rotation=90, labelsize=7.5)
    for text in axes.get_xticklabels():
        text.set_parse_math(False)
    axes.set_xlabel("layer, from input to output", fontsize=9.5, color=INK)


def _ms_axis(axes: Axes, scale: SpectrogramScale) -> None:
    """A scale on the right, in milliseconds of audio."""
    rest = scale.window_ms - scale.hop_ms  # what n frames cover beyond n hops
    right = axes.secondary_yaxis(
        "right",
        functions=(
            lambda frames: np.asarray(frames, float) * scale.hop_ms + rest,
            lambda ms: (np.asarray(ms, float) - rest) / scale.hop_ms,
        ),
    )
    right.set_ylabel("audio along time (ms)", fontsize=9.5, color=INK)
    right.tick_params(colors=INK, labelsize=8, width=0.8, length=3)
    right.yaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 2.5, 5, 10]))
    right.yaxis.set_major_formatter("{x:,.0f}")
    right.spines["right"].set_color(GREY)
    right.spines["right"].set_linewidth(0.8)


def _summary(field: ReceptiveField) -> str:
    """What one position of the last map sees."""
    time, frequency, scale = field.time, field.frequency, field.scale
    text = "all frames" if time is None else f"{time.size} frames"
    if field.time_ms is not None:
        text += f" ({field.time_ms:,.0f} ms)"
    if FREQUENCY in field.axes:
        unit = "frequency pixels" if scale is None else "mel bands"
        text += f" x all {unit}" if frequency is None else f" x {frequency.size} {unit}"
        if frequency is not None and scale is not None:
            text += f" (of {scale.n_mels})"
    return f"one position of the last map sees {text}"
