"""Plots of receptive fields.

`plot_layers` draws the exact field layer by layer, `plot_effective` the effective field over
a spectrogram, and `plot_tags` the effective fields of single tags.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from rfkeras.errors import ConfigError
from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf.effective_result import EffectiveField, FloatArray
from rfkeras.rf.field import FREQUENCY, ReceptiveField, map_layers
from rfkeras.rf.positions import Pair
from rfkeras.utils.plotting import (
    BLUE,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    add_axes,
    add_text,
    name_rows,
    new_figure,
    save_png,
    shades_of,
    style_axes,
)
from rfkeras.utils.text import count

SHOWN_SHARES = (0.5, 0.95)
_MOST_NAMES = 48
_MOST_LETTERS = 40
_INCHES_PER_LAYER, _INCHES_PER_LETTER = 0.27, 0.054
_ROW_INCHES = 0.235
_HEADER_INCHES, _FOOTER_INCHES = 0.95, 0.6
_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
_SHOWN_PERCENTILES = (25, 99.5)  # of the spectrogram's pixels, from white to the darkest
_LOUDEST = "#5A5A5A"  # not black, so that lines over it stay visible


def plot_layers(path: str | Path, field: ReceptiveField, title: str = "") -> None:
    """Draw the size of the receptive field after every layer, on both axes.

    The left scale is in pixels of the spectrogram (frames, mel bands). If the front-end is
    known, a scale on the right shows the milliseconds of audio that the frames cover, and a
    line shows the height of the spectrogram. Layers with an unlimited axis are shaded.

    Args:
        path: PNG file to write.
        field: Result of `receptive_field(model)`.
        title: Name of the network.

    Raises:
        ConfigError: There is no layer to show.
    """
    save_png(layers_figure(field, title), path)


def layers_figure(field: ReceptiveField, title: str = "") -> Figure:
    """Return the figure that `plot_layers` writes."""
    layers = map_layers(field)
    if not layers:
        raise ConfigError("No layer of this model has windows, so there is nothing to draw.")
    columns = [[row.time for row in layers], [row.frequency for row in layers]]
    sizes = [
        np.array([np.nan if one is None else one.size for one in column], dtype=float)
        for column in columns[: len(field.axes)]
    ]
    names = [_shortened(row.name) for row in layers]
    below = 0.55 + _INCHES_PER_LETTER * max(len(name) for name in names)
    width = 1.9 + max(4.2, _INCHES_PER_LAYER * min(len(layers), _MOST_NAMES))
    height = 3.65 + below
    figure = new_figure(width, height, title or "Receptive field", _summary(field))
    axes = add_axes(figure, 0.75, below, width - 1.6, height - below - 0.9)
    style_axes(axes, grid="y", y_label="receptive field (pixels)", label_size=9.5)
    top = _limits(axes, sizes, field)
    _shade_unlimited(axes, sizes, top)
    # Frequency is a thin, dashed line over time, so that both are visible where they are
    # equal, even without colour.
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
    return figure


def _shortened(name: str) -> str:
    """Return the end of a name, its most specific part in nested models."""
    return name if len(name) <= _MOST_LETTERS else "..." + name[3 - _MOST_LETTERS :]


def _mark_mel_bands(axes: Axes, bands: int, top: float) -> None:
    """Draw a line at the height of the whole spectrogram."""
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


def _limits(axes: Axes, sizes: list[NDArray[np.float64]], field: ReceptiveField) -> float:
    """Set the limits of both axes and return the upper limit of the vertical one."""
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
    """Draw one axis of the field: a step per layer, with gaps where it is unlimited."""
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
    """Shade the layers with an unlimited axis, and name the axis."""
    unlimited = [np.isnan(column) for column in sizes]
    both = np.logical_and.reduce(unlimited)
    parts = {"unlimited": both}
    for name, one in zip(("time", "frequency"), unlimited, strict=False):
        parts[f"{name}: unlimited"] = one & ~both
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
    """Write the layer names; in very deep networks only every second or third one."""
    every = -(-len(names) // _MOST_NAMES)
    axes.set_xticks(range(0, len(names), every), names[::every])
    axes.tick_params(axis="x", rotation=90, labelsize=7.5)
    for text in axes.get_xticklabels():
        text.set_parse_math(False)
    axes.set_xlabel("layer, from input to output", fontsize=9.5, color=INK)


def _ms_axis(axes: Axes, scale: SpectrogramScale) -> None:
    """Add a scale on the right, in milliseconds of audio."""
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
    """Return a sentence about what one position of the last map sees."""
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


def plot_effective(
    path: str | Path,
    field: EffectiveField,
    spectrogram: ArrayLike,
    *,
    position: Pair | None = None,
    title: str = "Effective receptive field",
) -> None:
    """Draw the exact window and its energy over a spectrogram, with curves next to it.

    On the left is the spectrogram in grey with the exact window of one position. The energy
    in it, averaged over all positions and clips of the field, is orange. Dashed lines are
    the centred windows with 50 % and 95 % of the energy on each axis. On the right is the
    share of the energy by length of a centred window, along time and along frequency.

    Args:
        path: PNG file to write.
        field: The field; `field.for_tag(name)` for one tag.
        spectrogram: (frames, mel bands) of one clip, in dB or standardised. It must be as
            long as the clips used to measure the field.
        position: (time, frequency) on the map; None: the measured position nearest to the
            middle.
        title: Title of the figure.

    Raises:
        ConfigError: The spectrogram has a different size, or the position is not on the
            map.
    """
    save_png(effective_figure(field, spectrogram, position, title), path)


def effective_figure(
    field: EffectiveField, spectrogram: ArrayLike, position: Pair | None, title: str
) -> Figure:
    """Return the figure that `plot_effective` writes."""
    pixels = _checked(spectrogram, field)
    position = _nearest_to_middle(field) if position is None else _on_map(position, field)
    figure = new_figure(11.0, 5.0, title, _caption(field))
    left = figure.add_axes((0.072, 0.11, 0.535, 0.73))
    draw_spectrogram(left, pixels, field.scale)
    _windows(left, field, position)
    _energy_key(figure, (0.437, 0.932, 0.17, 0.02))
    for axis, bottom, height in ((0, 0.6, 0.24), (1, 0.11, 0.31)):
        draw_curve(figure.add_axes((0.69, bottom, 0.29, height)), field, axis)
    add_text(figure, 7.6, 0.14, "Energy in a centred window", 9.5, colour=INK, bold=True)
    add_text(figure, 7.6, 0.4, "grey: if all pixels of the window had equal weight")
    return figure


def _checked(spectrogram: ArrayLike, field: EffectiveField) -> FloatArray:
    pixels = np.asarray(spectrogram, np.float64)
    size = tuple(axis.pixels for axis in field.axes)
    if pixels.shape != size:
        raise ConfigError(
            f"The spectrogram must have the shape that the field was measured on, {size[0]} "
            f"frames and {size[1]} bands. Received: {pixels.shape}."
        )
    return pixels


def _on_map(position: Pair, field: EffectiveField) -> Pair:
    lengths = tuple(axis.positions for axis in field.axes)
    if not all(0 <= index < length for index, length in zip(position, lengths, strict=True)):
        raise ConfigError(
            f"position must be on the map of {lengths[0]} by {lengths[1]} positions. "
            f"Received: {position!r}."
        )
    return position


def _nearest_to_middle(field: EffectiveField) -> Pair:
    def distance(position: Pair) -> float:
        return sum(
            abs(axis.centre(index) / axis.pixels - 0.5)
            for axis, index in zip(field.axes, position, strict=True)
        )

    return min(field.positions, key=distance)


def _windows(axes: Axes, field: EffectiveField, position: Pair) -> None:
    """Draw the energy in the box of a position, with the exact and smaller windows."""
    (first_frame, stop_frame), (first_band, stop_band) = field.box(position)
    image = np.empty((*field.energy.T.shape, 4))
    image[..., :3] = to_rgb(ORANGE)
    image[..., 3] = _opacity(field.energy.T / field.energy.max())
    axes.imshow(
        image,
        origin="lower",
        aspect="auto",
        extent=(first_frame - 0.5, stop_frame - 0.5, first_band - 0.5, stop_band - 0.5),
        interpolation="nearest",
        zorder=2,
    )
    frames, bands = (axis.pixels for axis in field.axes)
    axes.set_xlim(-0.5, frames - 0.5)  # drawing the image changed it
    axes.set_ylim(-0.5, bands - 0.5)
    windows = [axis.window(index) for axis, index in zip(field.axes, position, strict=True)]
    room = 0.055 * bands  # the height of a text
    top = _frame(axes, windows[0], windows[1], "exact", BLUE, bands - room)
    middle = (first_frame + field.centre[0], first_band + field.centre[1])
    for share in reversed(SHOWN_SHARES):
        spans = [
            (centre - size / 2, centre + size / 2)
            for centre, size in zip(middle, field.window(share), strict=True)
        ]
        highest = min(top, bands) - room
        top = _frame(axes, spans[0], spans[1], percent(share), INK, highest)


def _frame(
    axes: Axes,
    frames: tuple[float, float],
    bands: tuple[float, float],
    text: str,
    colour: str,
    highest: float,
) -> float:
    """Draw a rectangle around pixels, with its name above the corner if there is room.

    Returns:
        Upper edge of the rectangle.
    """
    frame = Rectangle(
        (frames[0] - 0.5, bands[0] - 0.5),
        frames[1] - frames[0],
        bands[1] - bands[0],
        fill=False,
        edgecolor=colour,
        linewidth=1.4,
        zorder=3,
    )
    frame.set_linestyle("-" if colour == BLUE else (0, (3, 2)))
    axes.add_patch(frame)
    if bands[1] <= highest and frames[0] >= 0:
        write_next_to(axes, text, (frames[0] - 0.5, bands[1] - 0.5), (0, 2.5), colour)
    return bands[1]


def _energy_key(figure: Figure, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place)
    shades = ScalarMappable(Normalize(0, 1), shades_of(ORANGE))
    bar = figure.colorbar(shades, cax=axes, orientation="horizontal")
    bar.outline.set_linewidth(0.5)
    shares = (0.0, 0.1, 0.5, 1.0)
    bar.set_ticks(list(_opacity(shares)), labels=["0", "10 %", "50 %", "100 %"])
    axes.tick_params(colors=INK, labelsize=7.5, length=2, pad=1.5)
    axes.set_title("energy relative to the largest", fontsize=8.5, color=INK, pad=3)


def _opacity(energy: ArrayLike) -> FloatArray:
    """Return the opacity of the heat map for energies relative to the largest.

    The square root makes the colour proportional to the magnitude of the gradient.
    """
    return np.sqrt(np.asarray(energy, np.float64))


def _caption(field: EffectiveField) -> str:
    measured = f"{count(len(field.positions), 'position')} in {count(field.clips, 'clip')}"
    return (
        f"{measured}; blue: the exact window; dashed: windows\n"
        "with 50 % and 95 % of the energy on each axis"
    )


def draw_spectrogram(axes: Axes, pixels: FloatArray, scale: SpectrogramScale | None) -> None:
    """Draw a spectrogram in grey, pixel i from i - 0.5 to i + 0.5 on both axes.

    Args:
        axes: Axes to draw on; ticks are in seconds and Hz if the units are known.
        pixels: (frames, mel bands), in dB or standardised.
        scale: Units of the spectrogram; None if unknown.
    """
    style_axes(axes)
    low, high = np.percentile(pixels, _SHOWN_PERCENTILES)
    axes.imshow(
        pixels.T,
        origin="lower",
        aspect="auto",
        cmap=shades_of(_LOUDEST),
        vmin=low,
        vmax=max(high, low + 1e-6),
    )
    frames, bands = pixels.shape
    axes.set_xlim(-0.5, frames - 0.5)
    axes.set_ylim(-0.5, bands - 0.5)
    if scale is None:
        axes.set_xlabel("frame", fontsize=9.5, color=INK)
        axes.set_ylabel("band", fontsize=9.5, color=INK)
        return
    seconds = _round_steps(scale.time_s(frames - 1), 10)
    axes.set_xticks([s * 1000 / scale.hop_ms for s in seconds], [f"{s:g}" for s in seconds])
    shown: dict[int, float] = {}
    for hz in reversed(_TICKS_HZ):
        at = scale.band_of_hz(hz)
        if 0 <= at <= bands - 1 and at < min(shown.values(), default=2 * bands) - bands / 30:
            shown[hz] = at
    axes.set_yticks(list(shown.values()), [f"{hz:,}" for hz in shown])
    axes.set_xlabel("time (s)", fontsize=9.5, color=INK)
    axes.set_ylabel("frequency (Hz, mel scale)", fontsize=9.5, color=INK)


def _round_steps(end: float, most: int) -> FloatArray:
    """Return at most `most` steps from 0 to the end, of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(end / most))
    step = next(power * s for s in (1, 2, 5, 10) if end / (power * s) <= most)
    return np.arange(0.0, end + 1e-9 * end, step)


def draw_curve(axes: Axes, field: EffectiveField, axis: int) -> None:
    """Draw the share of the energy by length of a centred window, on one axis."""
    style_axes(axes, grid="both", x_label=axis_title(field, axis), y_label="share of energy")
    sizes, shares = field.curve(axis)
    at = np.array([axis_length(field, axis, size) for size in sizes[1:]])
    axes.plot(at, sizes[1:] / sizes[-1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(at, shares[1:], color=ORANGE, linewidth=2)
    axes.set_xlim(0, 1.04 * at[-1])
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    lines = [(f"exact: {exact_text(field, axis)}", BLUE)]
    for share in reversed(SHOWN_SHARES):
        size = field.window(share)[axis]
        axes.plot(axis_length(field, axis, size), share, "o", color=INK, markersize=4, zorder=4)
        lines.append((f"{percent(share)}: {pixels_text(field, axis, size)}", INK))
    exact = field.axes[axis].field
    if exact is not None and sizes[-1] == exact.size:
        axes.axvline(at[-1], color=BLUE, linewidth=1.4)
    # There is room below the curve, which stays near or above the diagonal.
    for number, (text, colour) in enumerate(lines):
        write_next_to(axes, text, (at[-1], 0.0), (-5, 4 + 10.5 * number), colour, align="right")


def write_next_to(
    axes: Axes,
    text: str,
    spot: tuple[float, float],
    offset_points: tuple[float, float],
    colour: str = INK,
    align: str = "left",
) -> None:
    """Write small text next to a spot, readable on any background."""
    axes.annotate(
        text,
        spot,
        xytext=offset_points,
        textcoords="offset points",
        fontsize=8,
        color=colour,
        ha=align,
        zorder=4,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def plot_tags(path: str | Path, field: EffectiveField) -> None:
    """Draw the windows with 50 % and 95 % of the energy of each tag.

    There is one panel along time and one along frequency. Tags are sorted by the length of
    their window along time, longest first.

    Args:
        path: PNG file to write.
        field: Result of `effective_receptive_field` with `tags`.

    Raises:
        ConfigError: The field has no tags.
    """
    save_png(tags_figure(field), path)


def tags_figure(field: EffectiveField) -> Figure:
    """Return the figure that `plot_tags` writes."""
    if not field.tags:
        raise ConfigError(
            "The field was not measured per tag. Call effective_receptive_field with "
            'tags="all" or with their names.'
        )
    windows = {
        tag: [field.for_tag(tag).window(share) for share in SHOWN_SHARES] for tag in field.tags
    }
    names = sorted(windows, key=lambda tag: windows[tag][-1], reverse=True)
    rows = max(len(names), 3)
    names_inches = 0.35 + 0.075 * min(32, max(len(name) for name in names))
    width = names_inches + 7.2
    height = _HEADER_INCHES + _FOOTER_INCHES + _ROW_INCHES * rows
    figure = new_figure(
        width,
        height,
        "Effective receptive field by tag",
        "centred window with 50 % (ring) and 95 % (dot) of the energy",
        f"dashed: all tags together      exact: {exact_text(field, 0)}; {exact_text(field, 1)}",
    )
    panel = (width - names_inches - 0.5) / 2
    for axis in (0, 1):
        left = names_inches + axis * (panel + 0.3)
        axes = add_axes(figure, left, _FOOTER_INCHES, panel, _ROW_INCHES * rows)
        _panel(axes, field, axis, [[size[axis] for size in windows[name]] for name in names])
        axes.set_ylim(rows - 0.4, -0.6)
        name_rows(axes, names)
        axes.tick_params(labelleft=axis == 0)
    return figure


def _panel(axes: Axes, field: EffectiveField, axis: int, sizes: list[list[float]]) -> None:
    style_axes(axes, grid="x", x_label=axis_title(field, axis))
    for row, pair in enumerate(sizes):
        half, most = (axis_length(field, axis, size) for size in pair)
        axes.plot([half, most], [row, row], color=ORANGE, linewidth=1.2)
        axes.plot(half, row, "o", color=ORANGE, markerfacecolor="white", markersize=5.5)
        axes.plot(most, row, "o", color=ORANGE, markersize=5.5)
    for share in SHOWN_SHARES:
        together = axis_length(field, axis, field.window(share)[axis])
        axes.axvline(together, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(0, 1.08 * max(axis_length(field, axis, pair[-1]) for pair in sizes))


def pixels_text(field: EffectiveField, axis: int, size: float) -> str:
    """Return a size in pixels, and along time also in ms: "47 frames, 1,161 ms"."""
    if axis == 1:
        return f"{size:.0f} bands"
    span_ms = field.span_ms(size)
    return f"{size:.0f} frames" + ("" if span_ms is None else f", {span_ms:,.0f} ms")


def exact_text(field: EffectiveField, axis: int) -> str:
    """Return the size of the exact field on an axis as text."""
    exact = field.axes[axis].field
    return "unlimited" if exact is None else pixels_text(field, axis, exact.size)


def axis_length(field: EffectiveField, axis: int, pixels: float) -> float:
    """Convert pixels to the plotted unit: ms along time if the units are known."""
    span_ms = field.span_ms(pixels) if axis == 0 else None
    return pixels if span_ms is None else span_ms


def axis_title(field: EffectiveField, axis: int) -> str:
    """Return the axis label for `axis_length`, with its unit."""
    if axis == 1:
        return "window along frequency (bands)"
    return f"window along time ({'frames' if field.scale is None else 'ms'})"


def percent(share: float) -> str:
    """Format 0.95 as "95 %"."""
    return f"{100 * share:g} %"
