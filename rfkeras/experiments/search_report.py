"""The results of a search: the table of trials, the recipe of the best one and the plots."""

from __future__ import annotations

import contextlib
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import FloatArray
from rfkeras.experiments.search import Search, SearchFolder, recipe_options, trial_config
from rfkeras.experiments.search_space import AXES, Continuous, Grid, Value, value_text
from rfkeras.experiments.trial import failure_file, read_result
from rfkeras.frontend.presets import scale_of_preset
from rfkeras.training.callbacks import metric_label
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import write_text
from rfkeras.utils.plotting import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    add_axes,
    add_top_axis,
    new_figure,
    save_png,
    set_x_ticks,
    style_axes,
)
from rfkeras.utils.table import csv_text
from rfkeras.utils.text import count, duration

DONE, FAILED, RUNNING = "done", "failed", "running"

_COLUMNS = 3
_PANEL_WIDTH, _PANEL_HEIGHT, _FIELD_AXIS, _TOP = 3.3, 2.3, 0.45, 0.85  # inches
_MOST_LABELS = 7
_RHOS = ("rho", *AXES)
_LEGEND = "Filled: trained for the most epochs; open and smaller: for fewer"


@dataclass(frozen=True)
class TrialRow:
    """A trial of a search.

    Attributes:
        trial_id: keras-tuner's id of the trial.
        status: "done", "failed" or "running" (including trials that wait to be resumed).
        score: The monitored metric on validation; None if the trial is not done.
        values: Values of the searched options. Options whose condition does not hold are
            missing.
        epochs: Epochs of the trial's learning-rate schedule.
        promoted_from: Hyperband: the shorter trial with the same values, or "".
        rf_pixels: Receptive field (time, frequency) in frames and mel bands; None for an
            unlimited axis.
        rf_time_ms: Length of the audio behind one position, in milliseconds; None if
            unlimited.
        parameters: Number of trainable parameters; None if the trial is not done.
        seconds: Time of training and validation; None if the trial is not done.
        reason: Why the trial failed.
    """

    trial_id: str
    status: str
    score: float | None
    values: dict[str, Value]
    epochs: int
    promoted_from: str
    rf_pixels: tuple[int | None, int | None]
    rf_time_ms: float | None
    parameters: int | None
    seconds: float | None
    reason: str


def trial_row(
    search: Search,
    folder: RunFolder,
    trial_id: str,
    status: str,
    score: float | None,
    values: dict[str, Value],
    epochs: int,
    promoted_from: str = "",
) -> TrialRow:
    """Return the row of a trial, completed with the results in its folder."""
    result = read_result(folder) if status == DONE else {}
    failure = failure_file(folder)
    reason = ""
    if status == FAILED and failure.exists():
        reason = failure.read_text(encoding="utf-8").strip()
    pixels: tuple[int | None, int | None] = (None, None)
    ms = None
    with contextlib.suppress(ConfigError):  # the trial failed because of its options
        pixels, ms = receptive_field_of(trial_config(search.base, values, epochs))
    return TrialRow(
        trial_id=trial_id,
        status=status,
        score=score,
        values=values,
        epochs=epochs,
        promoted_from=promoted_from,
        rf_pixels=pixels,
        rf_time_ms=ms,
        parameters=result.get("parameters"),
        seconds=result.get("seconds"),
        reason=reason,
    )


def receptive_field_of(
    config: TrainConfig,
) -> tuple[tuple[int | None, int | None], float | None]:
    """Return ((frames, mel bands), milliseconds) of a run's model; None means unlimited."""
    import zoo

    plan = zoo.model_info(config.model).plan_for(**config.model_options())
    time, frequency = plan.time, plan.frequency
    ms = None if time is None else scale_of_preset(config.frontend).ms(time.size)
    sizes = (None if time is None else time.size, None if frequency is None else frequency.size)
    return sizes, ms


def best_row(search: Search, rows: Iterable[TrialRow]) -> TrialRow | None:
    """Return the first trial with the best score, or None if no trial is done."""
    best: TrialRow | None = None
    for row in rows:
        if row.score is not None and (best is None or search.better(row.score, best.score)):
            best = row
    return best


def write_table(search: Search, folder: SearchFolder, rows: Sequence[TrialRow]) -> None:
    """Write trials.csv, one line per trial in the order of their start."""
    columns = [
        *("trial", "status", search.monitor, "epochs"),
        *search.space.parameters,
        *("rf_time_pixels", "rf_frequency_pixels", "rf_time_ms"),
        *("parameters", "seconds", "promoted_from", "reason"),
    ]
    lines: list[dict[str, Any]] = []
    for row in rows:
        cells: dict[str, Any] = {
            "trial": row.trial_id,
            "status": row.status,
            search.monitor: None if row.score is None else f"{row.score:.6f}",
            "epochs": row.epochs,
            "rf_time_pixels": row.rf_pixels[0],
            "rf_frequency_pixels": row.rf_pixels[1],
            "rf_time_ms": None if row.rf_time_ms is None else f"{row.rf_time_ms:.1f}",
            "parameters": row.parameters,
            "seconds": row.seconds,
            "promoted_from": row.promoted_from,
            "reason": row.reason,
        }
        cells |= {name: value_text(value) for name, value in row.values.items()}
        lines.append(cells)
    write_text(folder.table, csv_text(lines, columns))


def write_best(search: Search, folder: SearchFolder, rows: Sequence[TrialRow]) -> None:
    """Write best.yaml, the recipe that trains the model of the best trial again."""
    import yaml

    best = best_row(search, rows)
    if best is None:
        return
    run = folder.trial(best.trial_id)
    config = trial_config(search.base, best.values, best.epochs)
    options = recipe_options(config)
    # Absolute folders, as the trial used them, so that the recipe works in any folder.
    complete = run.read_config()
    for name in ("data_dir", "audio_dir", "sound_font"):
        if name in options:
            options[name] = getattr(complete, name)
    done = sum(row.status == DONE for row in rows)
    score = f"{search.monitor} {best.score:.4f}"
    lines = [
        f"Best of {count(done, 'trial')} ({search.method}) on the validation split: {score}, "
        f"trial {best.trial_id}, {count(best.epochs, 'epoch')}, seed {config.seed}.",
        f"Data: {_data(run)}.",
        f"Searched: {', '.join(search.space.parameters)}.",
        f"Command: {search.command}",
        "",
        "These options were chosen by that score, so it is optimistic. To score the test "
        "split, which the search never used, run rfkeras train --recipe best.yaml.",
    ]
    header = "\n".join(
        "\n".join(
            textwrap.wrap(line, 92, initial_indent="# ", subsequent_indent="#   ")
            if line
            else ["#"]
        )
        for line in lines
    )
    table = yaml.safe_dump(options, sort_keys=False, default_flow_style=False)
    write_text(folder.best, f"{header}\n{table}")


def _data(run: RunFolder) -> str:
    """Describe the data of a trial."""
    data = json.loads(run.environment.read_text(encoding="utf-8"))["data"]
    clips = ", ".join(f"{data['clips'][name]:,} for {name}" for name in ("train", "validation"))
    return f"{data['name']}, clips: {clips.replace('train', 'training')}"


def trial_line(search: Search, row: TrialRow, rows: Sequence[TrialRow], planned: int) -> str:
    """Return a line about a trial that has ended."""
    ended = sum(other.status != RUNNING for other in rows)
    values = ", ".join(f"{name} {value_text(value)}" for name, value in row.values.items())
    head = f"[{ended}/{planned}] trial {row.trial_id}"
    if row.score is None:
        return f"{head}: failed ({values}): {row.reason}"
    best = best_row(search, rows)
    assert best is not None
    rank = "the best" if best is row else f"best {best.score:.4f}, trial {best.trial_id}"
    cost = count(row.epochs, "epoch")
    if row.seconds is not None:
        cost += f", {duration(row.seconds)}"
    return f"{head}: {search.monitor} {row.score:.4f} ({rank}), {values}; {cost}"


def write_plots(search: Search, folder: SearchFolder, rows: Sequence[TrialRow]) -> None:
    """Write both plots as PNG, once a trial is done."""
    if best_row(search, rows) is None:
        return
    save_png(score_figure(search, rows), folder.score_plot)
    save_png(value_figure(search, rows), folder.value_plot)


def score_figure(search: Search, rows: Sequence[TrialRow]) -> Figure:
    """Plot the scores by trial and by training time, with the best so far.

    Args:
        search: The search.
        rows: Its trials in the order of their start. At least one is done.
    """
    ended = [row for row in rows if row.score is not None or row.status == FAILED]
    done = [row for row in ended if row.score is not None]
    scores = np.array([row.score for row in done], float)
    winner = _winner(search, rows)
    best = (np.minimum if search.lower_is_better else np.maximum).accumulate(scores)
    numbers = np.array([place for place, row in enumerate(ended, 1) if row in done], float)
    hours = np.cumsum([row.seconds or 0.0 for row in done]) / 3600
    unit, times = ("hours", hours) if hours[-1] >= 1 else ("minutes", 60 * hours)
    height = 3.4
    figure = new_figure(
        7.6, height, "Search", *_captions(search, rows, "line: the best so far")
    )
    panels = ((numbers, "trial"), (times, f"{unit} of training, all trials together"))
    for place, (x, name) in enumerate(panels):
        axes = add_axes(figure, 0.75 + place * 3.45, 0.55, 3.1, height - _TOP - 0.55)
        style_axes(axes, grid="both", x_label=name)
        _scale_scores(axes, scores)
        # Extend the last step of the best score to the edge.
        edge = x[-1] + 0.02 * (x[-1] - x[0])
        axes.step([*x, edge], [*best, best[-1]], where="post", color=INK, lw=1.4)
        _points(axes, search, done, x, winner)
        if place:
            axes.set_xlim(left=0)
            axes.tick_params(labelleft=False)
        else:
            failed = [n for n, row in enumerate(ended, 1) if row.status == FAILED]
            _failures(axes, failed)
            axes.set_xlim(0.5, len(ended) + 0.8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_ylabel(metric_label(search.monitor), fontsize=9, color=INK)
    return figure


def value_figure(search: Search, rows: Sequence[TrialRow]) -> Figure:
    """Plot the scores against each searched option, rho with the receptive field above.

    Args:
        search: The search.
        rows: Its trials. At least one is done.
    """
    done = [row for row in rows if row.score is not None]
    scores = np.array([row.score for row in done], float)
    winner = _winner(search, rows)
    parameters = search.space.parameters
    columns = max(2, min(_COLUMNS, len(parameters)))
    names = list(parameters)
    lines = [names[place : place + columns] for place in range(0, len(names), columns)]
    heights = [_PANEL_HEIGHT + _FIELD_AXIS * bool({*line} & {*_RHOS}) for line in lines]
    width, height = columns * _PANEL_WIDTH + 0.25, sum(heights) + _TOP
    captions = _captions(search, rows, "other options differ along with it", failures=False)
    figure = new_figure(width, height, "Scores by value", *captions)
    for number, (name, parameter) in enumerate(parameters.items()):
        line, column = divmod(number, columns)
        left = column * _PANEL_WIDTH + (0.75 if column == 0 else 0.6)
        bottom = height - (_TOP + sum(heights[: line + 1]) - 0.55)
        axes = add_axes(figure, left, bottom, _PANEL_WIDTH - 0.6, _PANEL_HEIGHT - 0.7)
        style_axes(axes, grid="both", x_label=name)
        _scale_scores(axes, scores)
        mine = [row for row in done if name in row.values]
        if isinstance(parameter, Grid):
            _grid_axis(axes, search, name, parameter)
            x = _spread([parameter.values.index(row.values[name]) for row in mine])
        else:
            _number_axis(axes, parameter)
            x = np.array([row.values[name] for row in mine], float)
        _points(axes, search, mine, x, winner)
        if column == 0:
            axes.set_ylabel(metric_label(search.monitor), fontsize=9, color=INK)
        else:
            axes.tick_params(labelleft=False)
    return figure


def _winner(search: Search, rows: Sequence[TrialRow]) -> TrialRow:
    """Return the best trial; at least one must be done."""
    best = best_row(search, rows)
    assert best is not None
    return best


def _captions(
    search: Search, rows: Sequence[TrialRow], note: str, *, failures: bool = True
) -> list[str]:
    """Return the lines under a figure's title."""
    best = _winner(search, rows)
    failed = sum(row.status == FAILED for row in rows)
    lost = f"; crosses: {failed} failed" if failed and failures else ""
    text = (
        f"{search.base.model} on {search.base.dataset}, {search.method}; diamond: the best, "
        f"trial {best.trial_id}, {best.score:.4f}; {note}{lost}"
    )
    return [text, *([_LEGEND] if len({row.epochs for row in rows}) > 1 else [])]


def _scale_scores(axes: Axes, scores: FloatArray) -> None:
    """Give all panels the same vertical scale."""
    low, high = float(scores.min()), float(scores.max())
    margin = 0.1 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _points(
    axes: Axes, search: Search, rows: Sequence[TrialRow], x: FloatArray, best: TrialRow
) -> None:
    """Draw one marker per trial, larger for more epochs, filled for the most epochs."""
    longest = search.base.epochs
    for row, place in zip(rows, x, strict=True):
        assert row.score is not None
        colour = ORANGE if row is best else BLUE
        axes.plot(
            place,
            row.score,
            marker="D" if row is best else "o",
            ms=3.0 + 3.0 * row.epochs / longest + (row is best),
            mec=colour,
            mfc=colour if row.epochs == longest else "white",
            zorder=4 if row is best else 3,
            clip_on=False,
        )


def _failures(axes: Axes, numbers: Sequence[int]) -> None:
    """Draw crosses for failed trials at the lower edge."""
    bottom = axes.get_ylim()[0]
    axes.plot(numbers, [bottom] * len(numbers), "x", color=GREY, ms=5, clip_on=False)


def _grid_axis(axes: Axes, search: Search, name: str, grid: Grid) -> None:
    """Set up an axis of categories, for rho with the receptive field above."""
    size = len(grid.values)
    places = list(range(0, size, -(-size // _MOST_LABELS)))
    axes.set_xlim(-0.5, size - 0.5)
    set_x_ticks(axes, places, [value_text(grid.values[place]) for place in places])
    if name not in _RHOS:
        return
    sizes = []
    for place in places:
        pixels, ms = receptive_field_of(trial_config(search.base, {name: grid.values[place]}))
        extent = pixels[1] if name == AXES[1] else ms
        sizes.append("all" if extent is None else f"{extent:.0f}")
    unit = "mel bands" if name == AXES[1] else "ms"
    add_top_axis(axes, places, sizes, f"receptive field ({unit})", size=7)


def _number_axis(axes: Axes, parameter: Continuous) -> None:
    """Set up an axis of numbers, linear or logarithmic."""
    margin = 0.04
    low, high = parameter.low, parameter.high
    if parameter.log:
        axes.set_xscale("log")
        ratio = (high / low) ** margin
        axes.set_xlim(low / ratio, high * ratio)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(FixedLocator(_decades(low, high)))
    else:
        axes.set_xlim(low - margin * (high - low), high + margin * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _decades(low: float, high: float) -> list[float]:
    """Return round numbers from low to high: powers of ten, in short ranges also multiples."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    factors = (1,) if high / low >= 1000 else (1, 3) if high / low >= 30 else (1, 2, 5)
    numbers = [factor * 10.0**power for power in powers for factor in factors]
    return [n for n in numbers if low * 0.999 <= n <= high * 1.001]


def _spread(places: Sequence[int]) -> FloatArray:
    """Shift markers a little where several have the same value."""
    shifts = (0.0, 0.16, -0.16, 0.08, -0.08, 0.24, -0.24)
    return np.array(
        [
            place + shifts[places[:number].count(place) % len(shifts)]
            for number, place in enumerate(places)
        ],
        float,
    )
