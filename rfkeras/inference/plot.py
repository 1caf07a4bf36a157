"""A picture of one file: its spectrogram, and below it the tags over time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from rfkeras.audio.decode import open_audio
from rfkeras.frontend import find_frontend
from rfkeras.frontend.presets import scale_of_frontend
from rfkeras.inference.output import Outcome, Scores, TagRules, clock, frame_scores_of
from rfkeras.rf.plots import draw_spectrogram
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

if TYPE_CHECKING:
    from rfkeras.inference import StreamTagger, TagResult

MOST_TAGS = 16
MOST_COLUMNS = 1200  # a column is then no narrower than a pixel
_BLOCK_SECONDS = 20.0
_WIDTH, _LEFT, _RIGHT = 11.0, 1.9, 0.75  # inches
_HEAD, _SPECTROGRAM, _GAP, _ROW, _FOOT = 0.85, 1.7, 0.15, 0.23, 0.55
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_TITLE_LETTERS, _NAME_LETTERS = 80, 22


def plot_tags(
    path: str | Path, tagger: StreamTagger, rules: TagRules, outcome: Outcome
) -> None:
    """Draw the tags of a file over time, below its spectrogram.

    The file is read once more, in pieces; memory does not grow with its length. Of more than
    16 tags those are drawn that matter most.

    Args:
        path: PNG file to write.
        tagger: What read the file.
        rules: Its tags.
        outcome: The file, with a result that has frames.

    Raises:
        AudioError: The file cannot be read any more.
        ConfigError: The result has no frames.
    """
    if outcome.result is not None:
        pixels = spectrogram(tagger, outcome.file.path)
        save_png(tags_figure(tagger, rules, outcome.file.name, outcome.result, pixels), path)


def spectrogram(tagger: StreamTagger, path: Path) -> NDArray[np.float64]:
    """What the model's front-end makes of a file, in at most 1200 columns.

    Returns:
        (columns, mel bands), mean dB of the frames of a column, before standardisation.
    """
    frontend: Any = find_frontend(tagger.model)  # a StreamTagger's model has one
    hop = frontend.hop_samples
    block_frames = max(1, tagger.audio_format.samples(_BLOCK_SECONDS) // hop)
    with open_audio(path, tagger.audio_format, decoder=tagger.decoder) as file:
        n_frames = 1 + max(file.length, frontend.min_samples) // hop
        columns = min(n_frames, MOST_COLUMNS)
        sums = np.zeros((columns, frontend.n_mels))
        counts = np.zeros((columns, 1))
        for first in range(0, n_frames, block_frames):
            start = min(first * hop, file.length - 1)
            stop = min(start + block_frames * hop, file.length)
            mel = frontend.mel_db(file.read(start, stop - start)[None]).numpy()[0].mean(-1)
            mel = mel[: min(block_frames, n_frames - first)]
            column = (first + np.arange(len(mel))) * columns // n_frames
            np.add.at(sums, column, mel)
            np.add.at(counts, column, 1)
    return sums / counts


def tags_figure(
    tagger: StreamTagger,
    rules: TagRules,
    name: str,
    result: TagResult,
    pixels: NDArray[np.float64],
) -> Figure:
    """The figure that `plot_tags` writes.

    Args:
        tagger: What read the file.
        rules: Its tags.
        name: Of the file.
        result: What the model says of it, with frames.
        pixels: What `spectrogram` returned.
    """
    tags = rules.ranking(result)[:MOST_TAGS]
    map_inches = _ROW * max(len(tags), 3)
    height = _HEAD + _SPECTROGRAM + _GAP + map_inches + _FOOT
    figure = new_figure(_WIDTH, height)

    def add(bottom: float, inches: float, **shared: Any) -> Axes:
        span = (_WIDTH - _LEFT - _RIGHT) / _WIDTH
        return figure.add_axes(
            (_LEFT / _WIDTH, bottom / height, span, inches / height), **shared
        )

    above = add(_FOOT + map_inches + _GAP, _SPECTROGRAM)
    frontend: Any = find_frontend(tagger.model)
    scale = scale_of_frontend(frontend)
    draw_spectrogram(above, pixels, scale)
    # From pixels to seconds, which the map of tags shares.
    half_s = scale.hop_ms / 2000
    end_s = max(result.seconds, 2 * half_s)
    above.images[0].set_extent((-half_s, end_s + half_s, -0.5, pixels.shape[1] - 0.5))
    above.set_xlabel("")
    above.set_ylabel("Hz", fontsize=9, color=INK)
    _thin_ticks(above, pixels.shape[1] / 10)
    below = add(_FOOT, map_inches, sharex=above)
    _draw_map(below, rules, result, tags)
    step = next((s for s in _STEPS_S if end_s / s <= 10), _STEPS_S[-1])
    ticks = np.arange(0, end_s + 1e-9, step)
    below.set_xticks(ticks, [clock(tick) for tick in ticks])
    below.set_xlim(0, end_s)
    above.tick_params(labelbottom=False)
    below.set_xlabel("time (min:s)", fontsize=9, color=INK)
    _head(figure, height, rules, name, result, len(tags))
    return figure


def _thin_ticks(axes: Axes, least: float) -> None:
    """Drop marks that are nearer to the one above them, for the panel is low."""
    kept: list[tuple[float, str]] = []
    marks = zip(
        axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels()), strict=True
    )
    for at, text in sorted(marks, reverse=True):
        if not kept or kept[-1][0] - at >= least:
            kept.append((at, text))
    axes.set_yticks([at for at, _ in kept], [text for _, text in kept])


def _draw_map(axes: Axes, rules: TagRules, result: TagResult, tags: list[int]) -> None:
    bare(axes)
    axes.spines["left"].set_visible(False)
    columns, frames_a_column = column_maxima(frame_scores_of(result)[:, tags])
    stride_s = rules.frames.stride_ms / 1000
    start_s = rules.frames.first_ms / 1000 - stride_s / 2
    axes.imshow(
        columns.T,
        aspect="auto",
        interpolation="nearest",  # tags are no neighbours of each other
        cmap=_colours(),
        vmin=0,
        vmax=1,
        extent=(
            start_s,
            start_s + stride_s * frames_a_column * len(columns),
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
    axes.set_yticks(range(len(tags)), [short(rules.names[tag], _NAME_LETTERS) for tag in tags])
    axes.tick_params(axis="y", length=0)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)


def column_maxima(scores: Scores) -> tuple[Scores, int]:
    """Scores of so few columns that a picture can show them.

    Args:
        scores: (frames, tags).

    Returns:
        (columns, tags), each the highest of neighbouring frames so that short appearances
        stay visible, and how many frames a column has.
    """
    frames_a_column = -(-len(scores) // MOST_COLUMNS)
    starts = np.arange(0, len(scores), frames_a_column)
    return np.maximum.reduceat(scores, starts, axis=0), frames_a_column


def _head(
    figure: Figure, height: float, rules: TagRules, name: str, result: TagResult, rows: int
) -> None:
    x, inch = 0.15 / _WIDTH, 1 / height
    title = short(Path(name).name, _TITLE_LETTERS)
    label(figure, x, 1 - 0.12 * inch, title.replace("$", r"\$"), 13, bold=True)
    model = Path(rules.model).parts[-2:]
    left_out = len(rules.names) - rows
    about = f"{clock(math.ceil(result.seconds))}    {short('/'.join(model), 34)}"
    about += f"    {left_out} more tags not shown" if left_out else ""
    label(figure, x, 1 - 0.45 * inch, about.replace("$", r"\$"), 8.5, colour=GREY)
    key = "orange: the tag applies    right: score of the whole, * applies"
    figure.text(
        1 - 2.35 / _WIDTH,
        1 - 0.45 * inch,
        key,
        fontsize=8.5,
        color=GREY,
        va="top",
        ha="right",
    )
    bar = figure.add_axes((1 - 1.75 / _WIDTH, 1 - 0.57 * inch, 1.1 / _WIDTH, 0.11 * inch))
    bar.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=_colours(), vmin=0, vmax=1)
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


def _colours() -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("score", ["white", BLUE])


def short(text: str, letters: int) -> str:
    """Text of so many letters at most, with a box for what the font cannot draw."""
    # Else each such letter is a warning.
    font = get_font(findfont(FontProperties()))
    drawn = "".join(c if font.get_char_index(ord(c)) else "\N{WHITE SQUARE}" for c in text)
    return drawn if len(drawn) <= letters else drawn[: letters - 3] + "..."
