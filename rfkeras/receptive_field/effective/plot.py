"""Pictures of the effective receptive field: over a spectrogram, and tag by tag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from rfkeras.errors import ConfigError
from rfkeras.plot_style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    label,
    new_figure,
    save_png,
)
from rfkeras.receptive_field.effective.curves import (
    SHOWN_SHARES,
    draw_curve,
    percent,
    write_beside,
)
from rfkeras.receptive_field.effective.field import EffectiveField, FloatArray
from rfkeras.receptive_field.effective.spectrogram_plot import draw_spectrogram
from rfkeras.receptive_field.effective.windows import Pair


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
