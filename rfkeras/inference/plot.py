"""Plot one file: its spectrogram, and below it the tags over time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from rfkeras.inference.output import Outcome, TagRules, column_maxima, frame_scores_of
from rfkeras.rf.plots import draw_spectrogram
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
from rfkeras.utils.text import clock, count, shorten

if TYPE_CHECKING:
    from rfkeras.inference import ChunkTagger, TagResult

MOST_TAGS = 16
MOST_COLUMNS = 1200  # no narrower than a pixel
_WIDTH, _LEFT, _RIGHT = 11.0, 1.9, 0.75  # inches
_HEADER, _SPECTROGRAM, _GAP, _ROW, _FOOTER = 0.85, 1.7, 0.15, 0.23, 0.55
_TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_TITLE_CHARACTERS, _NAME_CHARACTERS = 80, 22


def plot_tags(path: str | Path, tagger: ChunkTagger, rules: TagRules, outcome: Outcome) -> None:
    """Plot the tags of a file over time, below its spectrogram.

    Reads the file again, in blocks, so memory does not grow with its length. Shows at most the
    16 most important tags.

    Args:
        path: PNG file to write.
        tagger: The tagger that produced the result.
        rules: The tags and their rules.
        outcome: The file and its result, with frames.

    Raises:
        AudioError: The file can no longer be read.
        ConfigError: The result has no frames.
    """
    if outcome.result is not None:
        pixels = tagger.file_spectrogram(outcome.file.path, MOST_COLUMNS)
        save_png(tags_figure(tagger, rules, outcome.file.name, outcome.result, pixels), path)


def tags_figure(
    tagger: ChunkTagger,
    rules: TagRules,
    name: str,
    result: TagResult,
    pixels: NDArray[np.float64],
) -> Figure:
    """Return the figure that `plot_tags` writes.

    Args:
        tagger: The tagger that produced the result.
        rules: The tags and their rules.
        name: Name of the file.
        result: The result, with frames.
        pixels: Output of `ChunkTagger.file_spectrogram`.
    """
    tags = rules.ranking(result)[:MOST_TAGS]
    map_inches = _ROW * max(len(tags), 3)
    height = _HEADER + _SPECTROGRAM + _GAP + map_inches + _FOOTER
    figure = new_figure(_WIDTH, height)
    width = _WIDTH - _LEFT - _RIGHT
    above = add_axes(figure, _LEFT, _FOOTER + map_inches + _GAP, width, _SPECTROGRAM)
    scale = tagger.scale
    draw_spectrogram(above, pixels, scale)
    # Convert from pixels to seconds, the unit of the shared axis.
    half_s = scale.hop_ms / 2000
    end_s = max(result.seconds, 2 * half_s)
    above.images[0].set_extent((-half_s, end_s + half_s, -0.5, pixels.shape[1] - 0.5))
    above.set_xlabel("")
    above.set_ylabel("Hz", fontsize=9, color=INK)
    _thin_ticks(above, pixels.shape[1] / 10)
    below = add_axes(figure, _LEFT, _FOOTER, width, map_inches, sharex=above)
    _draw_map(below, rules, result, tags)
    step = next((s for s in _TICK_STEPS_S if end_s / s <= 10), _TICK_STEPS_S[-1])
    ticks = np.arange(0, end_s + 1e-9, step)
    below.set_xticks(ticks, [clock(tick) for tick in ticks])
    below.set_xlim(0, end_s)
    above.tick_params(labelbottom=False)
    below.set_xlabel("time (min:s)", fontsize=9, color=INK)
    _draw_header(figure, rules, name, result, len(tags))
    return figure


def _thin_ticks(axes: Axes, least: float) -> None:
    """Remove tick labels that are too close to the one above in this low panel."""
    kept: list[tuple[float, str]] = []
    marks = zip(
        axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels()), strict=True
    )
    for at, text in sorted(marks, reverse=True):
        if not kept or kept[-1][0] - at >= least:
            kept.append((at, text))
    axes.set_yticks([at for at, _ in kept], [text for _, text in kept])


def _draw_map(axes: Axes, rules: TagRules, result: TagResult, tags: list[int]) -> None:
    """Draw the tags over time: scores as colours, spans as orange bars."""
    style_axes(axes)
    axes.spines["left"].set_visible(False)
    columns, frames_per_column = column_maxima(frame_scores_of(result)[:, tags], MOST_COLUMNS)
    stride_s = rules.frames.stride_ms / 1000
    start_s = rules.frames.first_ms / 1000 - stride_s / 2
    axes.imshow(
        columns.T,
        aspect="auto",
        interpolation="nearest",  # neighbouring rows are unrelated tags
        cmap=shades_of(BLUE),
        vmin=0,
        vmax=1,
        extent=(
            start_s,
            start_s + stride_s * frames_per_column * len(columns),
            len(tags) - 0.5,
            -0.5,
        ),
    )
    spans, applies = rules.spans(result), rules.applies(result.scores)
    for row, tag in enumerate(tags):
        axes.axhline(row + 0.5, color=LIGHT, linewidth=0.6)
        parts = [(start, end - start) for start, end in spans[tag]]
        axes.broken_barh(parts, (row + 0.32, 0.16), color=ORANGE, linewidth=0)
        axes.text(
            1.01,
            row,
            f"{result.scores[tag]:.2f}{'*' if applies[tag] else ''}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            color=INK,
            fontweight="bold" if applies[tag] else "normal",
        )
    axes.set_ylim(len(tags) - 0.5, -0.5)
    name_rows(axes, [short(rules.names[tag], _NAME_CHARACTERS) for tag in tags], size=8)


def _draw_header(
    figure: Figure, rules: TagRules, name: str, result: TagResult, rows: int
) -> None:
    """Draw title, model, legend and colour bar."""
    left, end = 0.15, _WIDTH - 2.35
    title = short(Path(name).name, _TITLE_CHARACTERS)
    add_text(figure, left, 0.12, title, 13, colour=INK, bold=True)
    model = "/".join(Path(rules.model).parts[-2:])
    left_out = len(rules.names) - rows
    about = f"{clock(math.ceil(result.seconds))}    {short(model, 34)}"
    about += f"    {count(left_out, 'more tag')} not shown" if left_out else ""
    add_text(figure, left, 0.45, about)
    key = "orange: tag applies    right: score of the file, * applies"
    add_text(figure, end, 0.45, key, align="right")
    bar = add_axes(figure, _WIDTH - 1.75, figure.get_figheight() - 0.57, 1.1, 0.11)
    bar.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=shades_of(BLUE), vmin=0, vmax=1)
    bar.set_axis_off()
    for at, align, text in ((-0.06, "right", "score 0"), (1.06, "left", "1")):
        bar.text(
            at,
            0.4,
            text,
            transform=bar.transAxes,
            fontsize=8.5,
            color=GREY,
            ha=align,
            va="center",
        )


def short(text: str, most: int) -> str:
    """Shorten a text and replace characters that the font cannot draw with boxes."""
    # Matplotlib warns about each character that it cannot draw.
    font = get_font(findfont(FontProperties()))
    drawn = "".join(c if font.get_char_index(ord(c)) else "\N{WHITE SQUARE}" for c in text)
    return shorten(drawn, most, "...")
