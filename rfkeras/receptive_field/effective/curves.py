"""Share of an effective field's energy against the length of a window, as a picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from rfkeras.plot_style import BLUE, GREY, INK, LIGHT, ORANGE, bare
from rfkeras.receptive_field.effective.field import EffectiveField

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
