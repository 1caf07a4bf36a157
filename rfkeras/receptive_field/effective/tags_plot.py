"""The effective receptive fields of many tags side by side."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfkeras.errors import ConfigError
from rfkeras.plot_style import (
    GREY,
    INK,
    LIGHT,
    ORANGE,
    bare,
    label,
    new_figure,
    save_png,
)
from rfkeras.receptive_field.effective.curves import (
    SHOWN_SHARES,
    axis_length,
    axis_title,
    exact_text,
)
from rfkeras.receptive_field.effective.field import EffectiveField

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
