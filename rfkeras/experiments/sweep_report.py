"""What the runs of a sweep show together: a row a run, and a row a receptive field."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from rfkeras.evaluation.bootstrap import MeanAveragePrecision, mean_average_precision
from rfkeras.evaluation.result import SCORES_FILE, ClipScores, read_scores
from rfkeras.experiments.sweep import TEST, Cell, Job, Rho, figures_of
from rfkeras.frontend.presets import scale_of_preset
from rfkeras.training.callbacks import Selection
from rfkeras.utils.files import write_text
from rfkeras.utils.plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PURPLE,
    bare,
    label,
    new_figure,
    save_png,
)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run and where its scores lie.

    Attributes:
        cell: Its place in the grid.
        rf_pixels: Receptive field (time, frequency) in frames and mel bands.
        rf_ms: The audio that its frames cover.
        validation: The monitored figure of the weights that were chosen.
        scores: For each test, the file of the scores.
    """

    cell: Cell
    rf_pixels: tuple[int, int]
    rf_ms: float
    validation: float
    scores: dict[str, Path]


@dataclass(frozen=True)
class Point:
    """A variant at a receptive field on a test: the mean over seeds, and what it hangs on.

    Attributes:
        test: Name of the test.
        variant: Name of the variant.
        rho: As given, such as "7" or "7x5".
        rf_time_pixels: Receptive field in frames.
        rf_frequency_pixels: Receptive field in mel bands.
        rf_time_ms: The audio that its frames cover.
        seeds: How many runs.
        validation: Mean of their monitored figure on validation.
        mAP: Mean of their macro mAP.
        mAP_low: Lower bound of its 95 % interval over clips.
        mAP_high: Upper bound.
        seed_lowest: Lowest mAP of a run.
        seed_highest: Highest.
        seed_deviation: Standard deviation between runs (n - 1); NaN for one run.
        difference: mAP less that of the same variant with the largest receptive field.
        difference_low: Lower bound of its 95 % interval, by paired bootstrap over clips.
        difference_high: Upper bound.
        is_largest: Whether its receptive field is that largest one.
    """

    test: str
    variant: str
    rho: str
    rf_time_pixels: int
    rf_frequency_pixels: int
    rf_time_ms: float
    seeds: int
    validation: float
    mAP: float
    mAP_low: float
    mAP_high: float
    seed_lowest: float
    seed_highest: float
    seed_deviation: float
    difference: float
    difference_low: float
    difference_high: float
    is_largest: bool


def finished_runs(jobs: Iterable[Job]) -> list[FinishedRun]:
    """The runs that are done, read from their folders."""
    return [_finished(job) for job in jobs if job.is_done]


def _finished(job: Job) -> FinishedRun:
    import zoo

    plan = zoo.model_info(job.config.model).plan_for(**job.config.model_options())
    assert plan.time is not None  # a model with rho has a limit on both axes
    assert plan.frequency is not None
    choice = json.loads(job.folder.choice.read_text(encoding="utf-8"))
    scores = {TEST: job.folder.report / SCORES_FILE}
    scores |= {t.name: figures_of(job.folder, t).with_name(SCORES_FILE) for t in job.tests}
    return FinishedRun(
        job.cell,
        (plan.time.size, plan.frequency.size),
        scale_of_preset(job.config.frontend).ms(plan.time.size),
        choice["candidates"][choice["weights"]][choice["monitor"]],
        scores,
    )


def summarise(runs: Sequence[FinishedRun], samples: int = 1000) -> list[Point]:
    """A point for each test, variant and receptive field, in that order.

    Args:
        runs: Finished runs, all with the same tests.
        samples: Resamples of the clips behind the intervals.

    Raises:
        ConfigError: Runs were tested on different clips.
        DatasetError: A file of scores cannot be read.
    """
    points = []
    for test in runs[0].scores if runs else ():
        first: ClipScores | None = None
        for variant in dict.fromkeys(run.cell.variant for run in runs):
            groups: dict[Rho, list[FinishedRun]] = {}
            for run in sorted(runs, key=_by_size):
                if run.cell.variant == variant:
                    groups.setdefault(run.cell.rho, []).append(run)
            figures: dict[Rho, MeanAveragePrecision] = {}
            for rho, group in groups.items():
                models = [read_scores(run.scores[test]) for run in group]
                first = first or models[0]
                figures[rho] = _same_clips(first, models, samples)
            largest = figures[list(groups)[-1]]
            points += [_point(test, groups[rho], figures[rho], largest) for rho in groups]
    return points


def _by_size(run: FinishedRun) -> tuple[int, tuple[int, int], int]:
    return math.prod(run.rf_pixels), run.rf_pixels, run.cell.seed


def _same_clips(
    first: ClipScores, models: list[ClipScores], samples: int
) -> MeanAveragePrecision:
    mean_average_precision([first, *models], samples=0)  # raises if the clips differ
    return mean_average_precision(models, samples)


def _point(
    test: str,
    group: list[FinishedRun],
    figure: MeanAveragePrecision,
    largest: MeanAveragePrecision,
) -> Point:
    run, values = group[0], figure.values
    interval, difference = figure.interval, figure.minus(largest)
    return Point(
        test=test,
        variant=run.cell.variant,
        rho=run.cell.rho_text,
        rf_time_pixels=run.rf_pixels[0],
        rf_frequency_pixels=run.rf_pixels[1],
        rf_time_ms=round(run.rf_ms, 1),
        seeds=len(group),
        validation=float(np.mean([run.validation for run in group])),
        mAP=interval.value,
        mAP_low=interval.low,
        mAP_high=interval.high,
        seed_lowest=float(values.min()),
        seed_highest=float(values.max()),
        seed_deviation=float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        difference=difference.value,
        difference_low=difference.low,
        difference_high=difference.high,
        is_largest=figure is largest,
    )


def best_on_validation(points: Sequence[Point], monitor: str = "val_mAP") -> list[Point]:
    """Of each variant the point whose runs did best on validation.

    Args:
        points: Of one test.
        monitor: The figure in `Point.validation`.
    """
    selection = Selection(monitor)
    best: dict[str, Point] = {}
    for point in points:
        before = best.get(point.variant)
        if selection.better(point.validation, None if before is None else before.validation):
            best[point.variant] = point
    return list(best.values())


def run_rows(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """A row for each run and test, for runs.csv."""
    return [
        {
            "test": test,
            "variant": run.cell.variant,
            "rho": run.cell.rho_text,
            "seed": run.cell.seed,
            "rf_time_pixels": run.rf_pixels[0],
            "rf_frequency_pixels": run.rf_pixels[1],
            "rf_time_ms": round(run.rf_ms, 1),
            "validation": run.validation,
            "mAP": float(mean_average_precision([read_scores(path)], samples=0).mean),
        }
        for run in runs
        for test, path in run.scores.items()
    ]


def write_tables(folder: Path, runs: Sequence[FinishedRun], points: Sequence[Point]) -> None:
    """Write runs.csv and summary.csv."""
    _write_csv(folder / "runs.csv", run_rows(runs))
    _write_csv(folder / "summary.csv", [asdict(point) for point in points])


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    write_text(path, text.getvalue())


def markdown_tables(points: Sequence[Point]) -> str:
    """A table for each test: receptive fields down, variants across.

    Of each variant the mean over seeds, with the lowest and the highest of them, and the
    difference to its largest receptive field, with the 95 % interval.
    """
    return "\n".join(
        _table(test, [point for point in points if point.test == test])
        for test in dict.fromkeys(point.test for point in points)
    )


def _table(test: str, points: Sequence[Point]) -> str:
    variants = list(dict.fromkeys(point.variant for point in points))
    cells = {(point.variant, point.rho): point for point in points}
    head = ["rho", "RF (pixels)", "RF (s)"]
    for variant in variants:
        head += [f"{variant}: mAP (seeds)", f"{variant}: less largest RF (95 %)"]
    lines = [f"**{test}**", "", _row(head), _row(["---"] * len(head))]
    for rho in dict.fromkeys(point.rho for point in points):
        any_variant = next(point for point in points if point.rho == rho)
        sizes = dict.fromkeys((any_variant.rf_time_pixels, any_variant.rf_frequency_pixels))
        row = [rho, " x ".join(map(str, sizes)), f"{any_variant.rf_time_ms / 1000:.2f}"]
        for variant in variants:
            row += _cells(cells.get((variant, rho)))
        lines.append(_row(row))
    return "\n".join(lines) + "\n"


def _cells(point: Point | None) -> list[str]:
    if point is None:
        return ["", ""]
    figure = f"{point.mAP:.3f} ({point.seed_lowest:.3f}-{point.seed_highest:.3f})"
    if point.is_largest:
        return [figure, ""]
    low, high = point.difference_low, point.difference_high
    return [figure, f"{point.difference:+.3f} ({low:+.3f} to {high:+.3f})"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


Size = tuple[int, int]  # receptive field along time and frequency, in pixels

# Line, marker and colour of each variant, so that a print in grey can be read too.
_STYLES = (
    ("-", "o", BLUE),
    ("--", "s", ORANGE),
    (":", "^", GREEN),
    ("-.", "D", PURPLE),
    ("-", "v", GREY),
    ("--", "P", INK),
)
_LEGEND = "Marker: mean over seeds; thick bar: all seeds; thin bar: 95 % interval over clips"
_PANEL_WIDTH, _PANEL_HEIGHT, _TOP, _BOTTOM = 4.6, 3.2, 0.95, 0.7  # inches
_COLUMNS = 2


def write_plot(path: Path, points: Sequence[Point], subtitle: str = "") -> None:
    """Write the picture as PNG."""
    save_png(sweep_figure(points, subtitle), path)


def sweep_figure(points: Sequence[Point], subtitle: str = "") -> Figure:
    """mAP against receptive field, a panel a test.

    A marker is the mean over seeds, the thick bar its seeds from lowest to highest, the thin
    bar the 95 % interval over clips. The axis below is in pixels, the one above in seconds.

    Args:
        points: Of `summarise`.
        subtitle: What was trained, under the title.
    """
    tests = list(dict.fromkeys(point.test for point in points))
    variants = list(dict.fromkeys(point.variant for point in points))
    columns = min(_COLUMNS, len(tests))
    rows = -(-len(tests) // columns)
    width = max(columns * _PANEL_WIDTH, 6.4)
    height = rows * _PANEL_HEIGHT + _TOP
    figure = new_figure(width, height)
    label(figure, 0.02, 1 - 0.12 / height, "Receptive field and mAP", 13, bold=True)
    label(figure, 0.02, 1 - 0.40 / height, subtitle, 8.5, colour=GREY)
    label(figure, 0.02, 1 - 0.56 / height, _LEGEND, 8.5, colour=GREY)
    for number, test in enumerate(tests):
        row, column = divmod(number, columns)
        left = (column * width / columns + 0.62) / width
        bottom = 1 - (_TOP + (row + 1) * _PANEL_HEIGHT - _BOTTOM) / height
        size = ((width / columns - 0.85) / width, (_PANEL_HEIGHT - 1.45) / height)
        axes = figure.add_axes((left, bottom, *size))
        _panel(axes, [p for p in points if p.test == test], variants)
        axes.set_title(test, loc="left", fontsize=10, color=INK, fontweight="bold", pad=32)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(0.012, 1 - 0.72 / height),
        ncols=len(variants),
        frameon=False,
        fontsize=9,
    )
    return figure


def _panel(axes: Axes, points: Sequence[Point], variants: Sequence[str]) -> None:
    bare(axes)
    axes.grid(axis="y", color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    fields = {(p.rf_time_pixels, p.rf_frequency_pixels): p for p in points}
    square = all(time == frequency for time, frequency in fields)
    if square:  # sizes on a scale
        axes.set_xscale("log")
        places = {size: float(size[0]) for size in fields}
    else:  # shapes side by side, the smallest area first
        places = {size: 1.0 + i for i, size in enumerate(sorted(fields, key=math.prod))}
    for number, variant in enumerate(variants):
        line, marker, colour = _STYLES[number % len(_STYLES)]
        mine = [point for point in points if point.variant == variant]
        # Beside one another, so that the bars of the variants do not hide each other.
        beside = number - (len(variants) - 1) / 2
        x = [places[p.rf_time_pixels, p.rf_frequency_pixels] for p in mine]
        x = [at * (1 + 0.035 * beside) if square else at + 0.08 * beside for at in x]
        axes.plot(
            x, [p.mAP for p in mine], line, marker=marker, ms=5, color=colour, label=variant
        )
        axes.vlines(x, [p.mAP_low for p in mine], [p.mAP_high for p in mine], colour, lw=0.8)
        lowest, highest = [p.seed_lowest for p in mine], [p.seed_highest for p in mine]
        axes.vlines(x, lowest, highest, colour, lw=3.5, alpha=0.45)
    _label_axes(axes, fields, places, square)


def _label_axes(
    axes: Axes, fields: Mapping[Size, Point], places: Mapping[Size, float], square: bool
) -> None:
    """Pixels below, seconds above."""
    above = axes.secondary_xaxis("top")
    below_names = [str(t) if square else f"{t} x {f}" for t, f in fields]
    above_names = [f"{point.rf_time_ms / 1000:.1f} s" for point in fields.values()]
    for axis, names in ((axes, below_names), (above, above_names)):
        axis.xaxis.set_major_locator(FixedLocator([places[size] for size in fields]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels(names)
    shape = "" if square else ", time x frequency"
    axes.set_xlabel(f"receptive field (spectrogram pixels{shape})", fontsize=8.5, color=INK)
    axes.set_ylabel("mAP", fontsize=8.5, color=INK)
    above.tick_params(labelsize=8, colors=GREY, width=0.8, length=3)
    above.spines["top"].set_color(GREY)
