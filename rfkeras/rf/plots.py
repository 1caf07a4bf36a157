"""Share of an effective field's energy against the length of a window, as a picture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
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
    bare,
    label,
    new_figure,
    save_png,
)

SHOWN_SHARES = (0.5, 0.95)


def draw_curve(axes: Axes, field: EffectiveField, axis: int) -> None:
    """Share of the energy against the length of a centred window, on one axis."""
    bare(axes)
    axes.grid(True, color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    sizes, shares = field.curve(axis)
    at = np.array([axis_length(field, axis, size) for size in sizes[1:]])
    axes.plot(at, sizes[1:] / sizes[-1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(at, shares[1:], color=ORANGE, linewidth=2)
    axes.set_xlim(0, 1.04 * at[-1])
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_ylabel("share of energy", fontsize=9, color=INK)
    lines = [(f"exact: {exact_text(field, axis)}", BLUE)]
    for share in reversed(SHOWN_SHARES):
        size = field.window(share)[axis]
        axes.plot(axis_length(field, axis, size), share, "o", color=INK, markersize=4, zorder=4)
        lines.append((f"{percent(share)}: {pixels_text(field, axis, size)}", INK))
    exact = field.axes[axis].field
    if exact is not None and sizes[-1] == exact.size:
        axes.axvline(at[-1], color=BLUE, linewidth=1.4)
    # Under the curve, which is never far below the diagonal, there is room.
    for number, (text, colour) in enumerate(lines):
        write_beside(axes, text, (at[-1], 0.0), (-5, 4 + 10.5 * number), colour, align="right")
    axes.set_xlabel(axis_title(field, axis), fontsize=9, color=INK)


def pixels_text(field: EffectiveField, axis: int, size: float) -> str:
    """A size in pixels, and along time in ms too: "47 frames, 1,161 ms"."""
    if axis == 1:
        return f"{size:.0f} bands"
    span_ms = field.span_ms(size)
    return f"{size:.0f} frames" + ("" if span_ms is None else f", {span_ms:,.0f} ms")


def exact_text(field: EffectiveField, axis: int) -> str:
    """The exact field's size on an axis, in words."""
    exact = field.axes[axis].field
    return "no limit" if exact is None else pixels_text(field, axis, exact.size)


def axis_length(field: EffectiveField, axis: int, pixels: float) -> float:
    """Pixels of an axis as they are plotted: ms along time where the units are known."""
    span_ms = field.span_ms(pixels) if axis == 0 else None
    return pixels if span_ms is None else span_ms


def axis_title(field: EffectiveField, axis: int) -> str:
    """What `axis_length` is, and its unit."""
    if axis == 1:
        return "window along frequency (bands)"
    return f"window along time ({'frames' if field.scale is None else 'ms'})"


def write_beside(
    axes: Axes,
    text: str,
    spot: tuple[float, float],
    offset_points: tuple[float, float],
    colour: str = INK,
    align: str = "left",
) -> None:
    """Small text beside a spot, readable whatever is drawn under it."""
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


def percent(share: float) -> str:
    """0.95 as "95 %"."""
    return f"{100 * share:g} %"


_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
_SHOWN_PERCENTILES = (25, 99.5)  # of the spectrogram's pixels, from white to the darkest
_LOUDEST = "#5A5A5A"  # not black, so that what is drawn over it is seen


def draw_spectrogram(axes: Axes, pixels: FloatArray, scale: SpectrogramScale | None) -> None:
    """Draw a spectrogram in grey, pixel i from i - 0.5 to i + 0.5 on both axes.

    Args:
        axes: To draw on; ticks are seconds and Hz where the units are known.
        pixels: (frames, mel bands), in dB or standardised.
        scale: The spectrogram's units; None if they are not known.
    """
    bare(axes)
    low, high = np.percentile(pixels, _SHOWN_PERCENTILES)
    axes.imshow(
        pixels.T,
        origin="lower",
        aspect="auto",
        cmap=LinearSegmentedColormap.from_list("loudness", ["white", _LOUDEST]),
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
    """Multiples of 1, 2 or 5 times a power of ten from 0 to the end, at most that many."""
    power = 10.0 ** math.floor(math.log10(end / most))
    step = next(power * s for s in (1, 2, 5, 10) if end / (power * s) <= most)
    return np.arange(0.0, end + 1e-9 * end, step)


def plot_effective(
    path: str | Path,
    field: EffectiveField,
    spectrogram: ArrayLike,
    *,
    position: Pair | None = None,
    title: str = "Effective receptive field",
) -> None:
    """Draw the exact window and the energy in it over a spectrogram, and their curves.

    Left: the spectrogram in grey, the exact window of one position and in it the energy,
    averaged over all positions and clips of the field, in orange; the centred windows that
    hold 50 % and 95 % of it on each axis are dashed. Right: the share of the energy against
    the length of a centred window, along time and along frequency.

    Args:
        path: PNG file to write.
        field: What to show; `field.for_tag(name)` for one tag.
        spectrogram: (frames, mel bands) of one clip, in dB or standardised, as long as the
            clips that the field was measured with.
        position: On the map, (time, frequency); None: the measured one that is nearest to
            the middle.
        title: Of the picture.

    Raises:
        ConfigError: The spectrogram has another size, or the position is not on the map.
    """
    save_png(effective_figure(field, spectrogram, position, title), path)


def effective_figure(
    field: EffectiveField, spectrogram: ArrayLike, position: Pair | None, title: str
) -> Figure:
    """The figure that `plot_effective` writes; arguments and errors are the same."""
    pixels = _checked(spectrogram, field)
    position = _nearest_to_middle(field) if position is None else _on_map(position, field)
    figure = new_figure(11.0, 5.0)
    left = figure.add_axes((0.072, 0.11, 0.535, 0.73))
    draw_spectrogram(left, pixels, field.scale)
    _windows(left, field, position)
    _energy_key(figure, (0.437, 0.932, 0.17, 0.02))
    for axis, bottom, height in ((0, 0.6, 0.24), (1, 0.11, 0.31)):
        draw_curve(figure.add_axes((0.69, bottom, 0.29, height)), field, axis)
    label(figure, 0.012, 0.982, title, 13, bold=True)
    label(figure, 0.012, 0.92, _caption(field), 8.5, colour=GREY)
    label(figure, 0.69, 0.972, "Energy in a centred window", 9.5, bold=True)
    text = "grey: if all pixels of the window counted alike"
    label(figure, 0.69, 0.92, text, 8.5, colour=GREY)
    return figure


def _checked(spectrogram: ArrayLike, field: EffectiveField) -> FloatArray:
    pixels = np.asarray(spectrogram, np.float64)
    size = tuple(axis.pixels for axis in field.axes)
    if pixels.shape != size:
        raise ConfigError(
            f"The field was measured on spectrograms of {size[0]} frames and {size[1]} "
            f"bands: the spectrogram must have that shape. Received: {pixels.shape}."
        )
    return pixels


def _on_map(position: Pair, field: EffectiveField) -> Pair:
    lengths = tuple(axis.positions for axis in field.axes)
    if not all(0 <= index < length for index, length in zip(position, lengths, strict=True)):
        raise ConfigError(
            f"position must lie on the map of {lengths[0]} by {lengths[1]} positions. "
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
    """The energy in the box of that position, and the exact and the smaller windows."""
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
    axes.set_xlim(-0.5, frames - 0.5)  # which drawing the image has changed
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
    """A rectangle between edges of pixels, named above its corner if it is low enough.

    Returns:
        Its upper edge.
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
        write_beside(axes, text, (frames[0] - 0.5, bands[1] - 0.5), (0, 2.5), colour)
    return bands[1]


def _energy_key(figure: Figure, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place)
    colours = LinearSegmentedColormap.from_list("energy", ["white", ORANGE])
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), colours), cax=axes, orientation="horizontal"
    )
    bar.outline.set_linewidth(0.5)
    shares = (0.0, 0.1, 0.5, 1.0)
    bar.set_ticks(list(_opacity(shares)), labels=["0", "10 %", "50 %", "100 %"])
    axes.tick_params(colors=INK, labelsize=7.5, length=2, pad=1.5)
    axes.set_title("energy of a pixel, of the largest", fontsize=8.5, color=INK, pad=3)


def _opacity(energy: ArrayLike) -> FloatArray:
    """Of the heat map, for energies that are this share of the largest.

    The root, so that the colour follows the gradient's magnitude.
    """
    return np.sqrt(np.asarray(energy, np.float64))


def _caption(field: EffectiveField) -> str:
    positions, clips = len(field.positions), field.clips
    return (
        f"{positions} position{'s' * (positions > 1)} in {clips} clip{'s' * (clips > 1)}; "
        "blue: the exact window; dashed: windows\nwith 50 % and 95 % of the energy on each axis"
    )


_ROW_INCHES = 0.235
_HEADER_INCHES, _FOOTER_INCHES = 0.95, 0.6


def plot_tags(path: str | Path, field: EffectiveField) -> None:
    """Draw for each tag the windows that hold 50 % and 95 % of its energy.

    One panel along time and one along frequency; tags with the longest window along time
    stand first.

    Args:
        path: PNG file to write.
        field: What `effective_receptive_field` returned with `tags`.

    Raises:
        ConfigError: The field was not measured tag by tag.
    """
    save_png(tags_figure(field), path)


def tags_figure(field: EffectiveField) -> Figure:
    """The figure that `plot_tags` writes; the errors are the same."""
    if not field.tags:
        raise ConfigError(
            "A plot of tags needs a field that was measured tag by tag: call "
            'effective_receptive_field with tags="all", or with their names.'
        )
    windows = {
        tag: [field.for_tag(tag).window(share) for share in SHOWN_SHARES] for tag in field.tags
    }
    names = sorted(windows, key=lambda tag: windows[tag][-1], reverse=True)
    rows = max(len(names), 3)
    names_inches = 0.35 + 0.075 * min(32, max(len(name) for name in names))
    width = names_inches + 7.2
    height = _HEADER_INCHES + _FOOTER_INCHES + _ROW_INCHES * rows
    figure = new_figure(width, height)
    panel = (width - names_inches - 0.5) / 2
    for axis in (0, 1):
        left = names_inches + axis * (panel + 0.3)
        axes = figure.add_axes(
            (
                left / width,
                _FOOTER_INCHES / height,
                panel / width,
                _ROW_INCHES * rows / height,
            )
        )
        _panel(axes, field, axis, [[size[axis] for size in windows[name]] for name in names])
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_yticks(range(len(names)))
        axes.tick_params(axis="y", length=0)
        if axis == 1:
            axes.tick_params(labelleft=False)
            continue
        for text, name in zip(axes.set_yticklabels(names), names, strict=True):
            text.set_parse_math(False)
            text.set_fontsize(8.5 if len(name) <= 32 else 6)
    x, inch = 0.15 / width, 1 / height
    label(figure, x, 1 - 0.12 * inch, "Effective receptive field by tag", 13, bold=True)
    key = "centred window with 50 % (ring) and 95 % (dot) of the energy\n"
    key += "dashed: all tags together      exact: "
    key += f"{exact_text(field, 0)}; {exact_text(field, 1)}"
    label(figure, x, 1 - 0.42 * inch, key, 8.5, colour=GREY)
    return figure


def _panel(axes: Axes, field: EffectiveField, axis: int, sizes: list[list[float]]) -> None:
    bare(axes)
    axes.xaxis.grid(True, color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    for row, pair in enumerate(sizes):
        half, most = (axis_length(field, axis, size) for size in pair)
        axes.plot([half, most], [row, row], color=ORANGE, linewidth=1.2)
        axes.plot(half, row, "o", color=ORANGE, markerfacecolor="white", markersize=5.5)
        axes.plot(most, row, "o", color=ORANGE, markersize=5.5)
    for share in SHOWN_SHARES:
        together = axis_length(field, axis, field.window(share)[axis])
        axes.axvline(together, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(0, 1.08 * max(axis_length(field, axis, pair[-1]) for pair in sizes))
    axes.set_xlabel(axis_title(field, axis), fontsize=9, color=INK)


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
