"""What a search leaves: a table of its trials, and the recipe of the best one."""

from __future__ import annotations

import contextlib
import csv
import io
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
from rfkeras.experiments.search_space import AXES, Continuous, Grid, Value, shown_value
from rfkeras.experiments.trial import failure_file, read_result
from rfkeras.frontend.presets import scale_of_preset
from rfkeras.training.callbacks import spoken
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import write_text
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

DONE, FAILED, RUNNING = "done", "failed", "running"


@dataclass(frozen=True)
class TrialRow:
    """A trial.

    Attributes:
        trial_id: keras-tuner's name of it.
        status: "done", "failed", or "running" (also of one that is still to be resumed).
        score: The monitored figure on validation, of a trial that is done.
        values: Of the searched options; one whose condition does not hold is missing.
        epochs: That it has, as the learning rate's schedule counts them.
        promoted_from: Of Hyperband, the shorter trial with the same values.
        rf_pixels: Receptive field (time, frequency) in frames and mel bands; None where an
            axis has no limit.
        rf_time_ms: Audio behind one position; None without limit.
        parameters: Trainable ones, of a trial that is done.
        seconds: Of training and validation, of a trial that is done.
        reason: Why it failed.
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
    """The row of a trial, with what its folder tells."""
    result = read_result(folder) if status == DONE else {}
    failure = failure_file(folder)
    reason = ""
    if status == FAILED and failure.exists():
        reason = failure.read_text(encoding="utf-8").strip()
    pixels: tuple[int | None, int | None] = (None, None)
    ms = None
    with contextlib.suppress(ConfigError):  # of a trial that failed for its options
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
    """((frames, mel bands), milliseconds along time) of a run's model; None: no limit."""
    import zoo

    plan = zoo.model_info(config.model).plan_for(**config.model_options())
    time, frequency = plan.time, plan.frequency
    ms = None if time is None else scale_of_preset(config.frontend).ms(time.size)
    sizes = (None if time is None else time.size, None if frequency is None else frequency.size)
    return sizes, ms


def best_row(search: Search, rows: Iterable[TrialRow]) -> TrialRow | None:
    """The trial with the best score; of equal ones the first. None: none is done."""
    best: TrialRow | None = None
    for row in rows:
        if row.score is not None and (best is None or search.better(row.score, best.score)):
            best = row
    return best


def write_table(search: Search, folder: SearchFolder, rows: Sequence[TrialRow]) -> None:
    """Write trials.csv, a line for each trial in the order of their start."""
    columns = [
        *("trial", "status", search.monitor, "epochs"),
        *search.space.parameters,
        *("rf_time_pixels", "rf_frequency_pixels", "rf_time_ms"),
        *("parameters", "seconds", "promoted_from", "reason"),
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
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
        cells |= {name: shown_value(value) for name, value in row.values.items()}
        writer.writerow({name: "" if cell is None else cell for name, cell in cells.items()})
    write_text(folder.table, text.getvalue())


def write_best(search: Search, folder: SearchFolder, rows: Sequence[TrialRow]) -> None:
    """Write best.yaml, the recipe that trains the best trial's model anew."""
    import yaml

    best = best_row(search, rows)
    if best is None:
        return
    run = folder.trial(best.trial_id)
    config = trial_config(search.base, best.values, best.epochs)
    options = recipe_options(config)
    # Folders as the trial found them, wherever the recipe will be used.
    complete = run.read_config()
    for name in ("data_dir", "audio_dir", "sound_font"):
        if name in options:
            options[name] = getattr(complete, name)
    done = sum(row.status == DONE for row in rows)
    score = f"{search.monitor} {best.score:.4f}"
    lines = [
        f"Best of {done} trials ({search.method}) by the validation split: {score}, trial "
        f"{best.trial_id}, {best.epochs} epochs, seed {config.seed}.",
        f"Data: {_data(run)}.",
        f"Searched: {', '.join(search.space.parameters)}.",
        f"Command: {search.command}",
        "",
        "These options were chosen by that figure, which therefore flatters them. Train with "
        "train.py --recipe best.yaml: it scores the test split, which the search never saw.",
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
    """The data of a trial in words."""
    data = json.loads(run.environment.read_text(encoding="utf-8"))["data"]
    clips = ", ".join(f"{data['clips'][name]:,} for {name}" for name in ("train", "validation"))
    return f"{data['name']}, clips: {clips.replace('train', 'training')}"


def trial_line(search: Search, row: TrialRow, rows: Sequence[TrialRow], planned: int) -> str:
    """A line about a trial that has ended."""
    ended = sum(other.status != RUNNING for other in rows)
    values = ", ".join(f"{name} {shown_value(value)}" for name, value in row.values.items())
    head = f"[{ended}/{planned}] trial {row.trial_id}"
    if row.score is None:
        return f"{head}: failed ({values}): {row.reason}"
    best = best_row(search, rows)
    assert best is not None
    shown = "the best" if best is row else f"best {best.score:.4f}, trial {best.trial_id}"
    cost = f"{row.epochs} epoch{'s' * (row.epochs > 1)}"
    if row.seconds is not None:
        cost += f", {int(row.seconds) // 60}:{int(row.seconds) % 60:02d} min"
    return f"{head}: {search.monitor} {row.score:.4f} ({shown}), {values}; {cost}"


_COLUMNS = 3
_PANEL_WIDTH, _PANEL_HEIGHT, _FIELD_AXIS, _TOP = 3.3, 2.3, 0.45, 0.85  # inches
_MOST_LABELS = 7
_RHOS = ("rho", *AXES)
_LEGEND = "Filled: trained for the most epochs; open and smaller: for fewer"


def write_plots(search: Search, folder: SearchFolder, rows: Sequence[TrialRow]) -> None:
    """Write both pictures as PNG, once a trial is done."""
    if best_row(search, rows) is None:
        return
    save_png(score_figure(search, rows), folder.score_plot)
    save_png(value_figure(search, rows), folder.value_plot)


def score_figure(search: Search, rows: Sequence[TrialRow]) -> Figure:
    """Scores in the order of the trials and over the time spent, with the best so far.

    Args:
        search: The search.
        rows: Its trials in the order of their start, at least one of them done.
    """
    ended = [row for row in rows if row.score is not None or row.status == FAILED]
    done = [row for row in ended if row.score is not None]
    scores = np.array([row.score for row in done], float)
    winner = _winner(search, rows)
    best = (np.minimum if search.lower_is_better else np.maximum).accumulate(scores)
    numbers = np.array([place for place, row in enumerate(ended, 1) if row in done], float)
    hours = np.cumsum([row.seconds or 0.0 for row in done]) / 3600
    unit, times = ("hours", hours) if hours[-1] >= 1 else ("minutes", 60 * hours)
    width, height = 7.6, 3.4
    figure = new_figure(width, height)
    panels = ((numbers, "trial"), (times, f"{unit} of training, all trials together"))
    for place, (x, name) in enumerate(panels):
        left = (0.75 + place * 3.45) / width
        axes = figure.add_axes(
            (left, 0.55 / height, 3.1 / width, (height - _TOP - 0.55) / height)
        )
        _frame(axes, scores)
        # The best stands until a better one comes.
        edge = x[-1] + 0.02 * (x[-1] - x[0])
        axes.step([*x, edge], [*best, best[-1]], where="post", color=INK, lw=1.4)
        _points(axes, search, done, x, winner)
        axes.set_xlabel(name, fontsize=9, color=INK)
        if place:
            axes.set_xlim(left=0)
            axes.tick_params(labelleft=False)
        else:
            failed = [n for n, row in enumerate(ended, 1) if row.status == FAILED]
            _failures(axes, failed)
            axes.set_xlim(0.5, len(ended) + 0.8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_ylabel(spoken(search.monitor), fontsize=9, color=INK)
    _title(figure, search, rows, "Search", "line: the best so far")
    return figure


def value_figure(search: Search, rows: Sequence[TrialRow]) -> Figure:
    """Scores against each searched option; rho with the receptive field above.

    Args:
        search: The search.
        rows: Its trials, at least one of them done.
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
    figure = new_figure(width, height)
    for number, (name, parameter) in enumerate(parameters.items()):
        line, column = divmod(number, columns)
        left = (column * _PANEL_WIDTH + (0.75 if column == 0 else 0.6)) / width
        bottom = 1 - (_TOP + sum(heights[: line + 1]) - 0.55) / height
        size = (_PANEL_WIDTH - 0.6) / width, (_PANEL_HEIGHT - 0.7) / height
        axes = figure.add_axes((left, bottom, *size))
        _frame(axes, scores)
        mine = [row for row in done if name in row.values]
        if isinstance(parameter, Grid):
            _grid_axis(axes, search, name, parameter)
            x = _beside_each_other([parameter.values.index(row.values[name]) for row in mine])
        else:
            _number_axis(axes, parameter)
            x = np.array([row.values[name] for row in mine], float)
        _points(axes, search, mine, x, winner)
        axes.set_xlabel(name, fontsize=9, color=INK)
        if column == 0:
            axes.set_ylabel(spoken(search.monitor), fontsize=9, color=INK)
        else:
            axes.tick_params(labelleft=False)
    _title(figure, search, rows, "Scores by value", "other options differ along with it")
    return figure


def _winner(search: Search, rows: Sequence[TrialRow]) -> TrialRow:
    best = best_row(search, rows)
    assert best is not None  # both figures need a trial that is done
    return best


def _title(
    figure: Figure, search: Search, rows: Sequence[TrialRow], title: str, note: str
) -> None:
    height = figure.get_figheight()
    best = _winner(search, rows)
    label(figure, 0.015, 1 - 0.12 / height, title, 13, bold=True)
    failed = sum(row.status == FAILED for row in rows)
    lost = f"; crosses: {failed} failed" if failed and title == "Search" else ""
    text = (
        f"{search.base.model} on {search.base.dataset}, {search.method}; diamond: the best, "
        f"trial {best.trial_id}, {best.score:.4f}; {note}{lost}"
    )
    label(figure, 0.015, 1 - 0.40 / height, text, 8.5, colour=GREY)
    if len({row.epochs for row in rows}) > 1:
        label(figure, 0.015, 1 - 0.57 / height, _LEGEND, 8.5, colour=GREY)


def _frame(axes: Axes, scores: FloatArray) -> None:
    """Axes whose height is the same in all panels."""
    bare(axes)
    axes.grid(True, color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    low, high = float(scores.min()), float(scores.max())
    margin = 0.1 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _points(
    axes: Axes, search: Search, rows: Sequence[TrialRow], x: FloatArray, best: TrialRow
) -> None:
    """A marker for each trial, larger for more epochs, filled for the most."""
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
    bottom = axes.get_ylim()[0]
    axes.plot(numbers, [bottom] * len(numbers), "x", color=GREY, ms=5, clip_on=False)


def _grid_axis(axes: Axes, search: Search, name: str, grid: Grid) -> None:
    """Values side by side, of rho with the receptive field above."""
    count = len(grid.values)
    places = list(range(0, count, -(-count // _MOST_LABELS)))
    axes.set_xlim(-0.5, count - 0.5)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.set_xticklabels([shown_value(grid.values[place]) for place in places])
    if name not in _RHOS:
        return
    shown = []
    for place in places:
        pixels, ms = receptive_field_of(trial_config(search.base, {name: grid.values[place]}))
        size = pixels[1] if name == AXES[1] else ms
        shown.append("all" if size is None else f"{size:.0f}")
    above = axes.secondary_xaxis("top")
    above.xaxis.set_major_locator(FixedLocator(places))
    above.set_xticklabels(shown)
    above.tick_params(labelsize=7, colors=GREY, width=0.8, length=3)
    above.spines["top"].set_color(GREY)
    unit = "mel bands" if name == AXES[1] else "ms"
    above.set_xlabel(f"receptive field ({unit})", fontsize=7.5, color=GREY)


def _number_axis(axes: Axes, parameter: Continuous) -> None:
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
    """Round numbers from low to high: powers of ten, of a short range also 2 and 5 of them."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    factors = (1,) if high / low >= 1000 else (1, 3) if high / low >= 30 else (1, 2, 5)
    numbers = [factor * 10.0**power for power in powers for factor in factors]
    return [n for n in numbers if low * 0.999 <= n <= high * 1.001]


def _beside_each_other(places: Sequence[int]) -> FloatArray:
    """Places of markers, moved aside a little where several have one value."""
    shifts = (0.0, 0.16, -0.16, 0.08, -0.08, 0.24, -0.24)
    return np.array(
        [
            place + shifts[places[:number].count(place) % len(shifts)]
            for number, place in enumerate(places)
        ],
        float,
    )
