"""The results of a sweep: rows, tables and a plot, and the choice of a receptive field.

There is one row per run and one per receptive field. A receptive field is chosen on the
validation split and compared with the others on the test split, by paired bootstrap over clips
and seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfkeras.evaluation.bootstrap import (
    CONFIDENCE,
    Interval,
    MeanAveragePrecision,
    bootstrap_mean_average_precision,
)
from rfkeras.evaluation.result import SCORES_FILE, ClipScores, read_scores
from rfkeras.experiments.sweep import TEST, ExtraTest, Job, Rho, SweepRun, report_file
from rfkeras.frontend.presets import scale_of_preset
from rfkeras.training.callbacks import Selection, lower_is_better
from rfkeras.utils.files import write_text
from rfkeras.utils.plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    add_axes,
    add_top_axis,
    new_figure,
    save_png,
    set_x_ticks,
    style_axes,
)
from rfkeras.utils.table import Table, csv_text

# Line, marker and colour of each variant. Variants are distinct in greyscale too.
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
LEARNT = 0.98  # mAP on its training clips from which a network is trained to the end
_DEFAULT_MONITOR = "val_mAP"
_COMPARED = 2  # candidates whose differences are written out


@dataclass(frozen=True)
class FinishedRun:
    """A finished run and the files with its scores.

    Attributes:
        run: Variant, rho and seed.
        rf_pixels: Receptive field (time, frequency) in frames and mel bands.
        rf_ms: Length of the audio that those frames cover, in milliseconds.
        validation: The monitored metric of the weights that were kept.
        scores: File of scores of each test, by its name.
    """

    run: SweepRun
    rf_pixels: tuple[int, int]
    rf_ms: float
    validation: float
    scores: dict[str, Path]


@dataclass(frozen=True)
class Group:
    """The runs of a variant at one receptive field, with their mAP on one test.

    Attributes:
        runs: One run per seed.
        metric: mAP of the runs and its bootstrap samples.
    """

    runs: list[FinishedRun]
    metric: MeanAveragePrecision

    @property
    def validation(self) -> float:
        """Mean of the runs' monitored metric on the validation split."""
        return float(np.mean([finished.validation for finished in self.runs]))


@dataclass(frozen=True)
class Point:
    """The scores of a variant at one receptive field on one test, over all seeds.

    Attributes:
        test: Name of the test.
        variant: Name of the variant.
        rho: rho as given, such as "7" or "7x5".
        rf_time_pixels: Receptive field along time, in frames.
        rf_frequency_pixels: Receptive field along frequency, in mel bands.
        rf_time_ms: Length of the audio that those frames cover, in milliseconds.
        seeds: Number of runs.
        validation: Mean of the runs' monitored metric on the validation split.
        mAP: Mean of the runs' macro mAP.
        mAP_low: Lower bound of the 95 % interval of mAP over clips.
        mAP_high: Upper bound of that interval.
        seed_lowest: Lowest mAP of a run.
        seed_highest: Highest mAP of a run.
        seed_deviation: Standard deviation between runs (n - 1); NaN for one run.
        difference: mAP minus that of the same variant with its largest receptive field.
        difference_low: Lower bound of the 95 % interval of the difference, by paired
            bootstrap over clips.
        difference_high: Upper bound of that interval.
        is_largest: Whether this is the variant's largest receptive field.
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
    """Read the runs that are done from their folders."""
    return [_finished(job) for job in jobs if job.is_done]


def _finished(job: Job) -> FinishedRun:
    """Read one finished run."""
    import zoo

    plan = zoo.model_info(job.config.model).plan_for(**job.config.model_options())
    assert plan.time is not None  # a model with rho has a limited field on both axes
    assert plan.frequency is not None
    choice = json.loads(job.folder.final_weights.read_text(encoding="utf-8"))
    scores = {TEST: job.folder.report / SCORES_FILE}
    scores |= {t.name: report_file(job.folder, t).with_name(SCORES_FILE) for t in job.tests}
    return FinishedRun(
        job.run,
        (plan.time.size, plan.frequency.size),
        scale_of_preset(job.config.frontend).ms(plan.time.size),
        choice["candidates"][choice["weights"]][choice["monitor"]],
        scores,
    )


def summarise(runs: Sequence[FinishedRun], samples: int = 1000) -> list[Point]:
    """Summarise runs as one point per test, variant and receptive field, in that order.

    Args:
        runs: Finished runs, all with the same tests.
        samples: Number of bootstrap samples of the clips, for the intervals.

    Raises:
        ConfigError: Runs were tested on different clips.
        DatasetError: A file of scores cannot be read.
    """
    points = []
    for test in runs[0].scores if runs else ():
        for groups in groups_by_variant(runs, test, samples):
            largest = groups[-1].metric
            points += [_point(test, group, largest) for group in groups]
    return points


def groups_by_variant(
    runs: Sequence[FinishedRun], test: str, samples: int = 1000
) -> list[list[Group]]:
    """Return the groups of every variant, the smallest receptive field first.

    Args:
        runs: Finished runs.
        test: Name of the test.
        samples: Number of bootstrap samples of the clips, the same ones for all groups.

    Raises:
        ConfigError: Runs were tested on different clips.
        DatasetError: A file of scores cannot be read.
    """
    first: ClipScores | None = None
    variants = []
    for variant in dict.fromkeys(finished.run.variant for finished in runs):
        members: dict[Rho, list[FinishedRun]] = {}
        for finished in sorted(runs, key=_by_size):
            if finished.run.variant == variant:
                members.setdefault(finished.run.rho, []).append(finished)
        groups = []
        for group in members.values():
            models = [read_scores(finished.scores[test]) for finished in group]
            first = first or models[0]
            bootstrap_mean_average_precision(
                [first, *models], samples=0
            )  # raises if clips differ
            groups.append(Group(group, bootstrap_mean_average_precision(models, samples)))
        variants.append(groups)
    return variants


def _by_size(finished: FinishedRun) -> tuple[int, tuple[int, int], int]:
    """Return a sort key: area of the receptive field, then its sides, then the seed."""
    return math.prod(finished.rf_pixels), finished.rf_pixels, finished.run.seed


def _point(test: str, group: Group, largest: MeanAveragePrecision) -> Point:
    """Summarise the runs of one variant and receptive field on one test."""
    first, metric = group.runs[0], group.metric
    values = metric.values
    interval, difference = metric.interval, metric.minus(largest)
    return Point(
        test=test,
        variant=first.run.variant,
        rho=first.run.rho_text,
        rf_time_pixels=first.rf_pixels[0],
        rf_frequency_pixels=first.rf_pixels[1],
        rf_time_ms=round(first.rf_ms, 1),
        seeds=len(group.runs),
        validation=group.validation,
        mAP=interval.value,
        mAP_low=interval.low,
        mAP_high=interval.high,
        seed_lowest=float(values.min()),
        seed_highest=float(values.max()),
        seed_deviation=float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        difference=difference.value,
        difference_low=difference.low,
        difference_high=difference.high,
        is_largest=metric is largest,
    )


def best_on_validation(points: Sequence[Point], monitor: str = "val_mAP") -> list[Point]:
    """Return the point of each variant whose runs were best on validation.

    Args:
        points: Points of one test.
        monitor: Name of the metric in `Point.validation`.
    """
    selection = Selection(monitor)
    best: dict[str, Point] = {}
    for point in points:
        before = best.get(point.variant)
        if selection.better(point.validation, None if before is None else before.validation):
            best[point.variant] = point
    return list(best.values())


def run_rows(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Return one row per run and test, for runs.csv."""
    return [
        {
            "test": test,
            "variant": finished.run.variant,
            "rho": finished.run.rho_text,
            "seed": finished.run.seed,
            "rf_time_pixels": finished.rf_pixels[0],
            "rf_frequency_pixels": finished.rf_pixels[1],
            "rf_time_ms": round(finished.rf_ms, 1),
            "validation": finished.validation,
            "mAP": float(bootstrap_mean_average_precision([read_scores(path)], samples=0).mean),
        }
        for finished in runs
        for test, path in finished.scores.items()
    ]


def write_tables(folder: Path, runs: Sequence[FinishedRun], points: Sequence[Point]) -> None:
    """Write runs.csv and summary.csv."""
    _write_csv(folder / "runs.csv", run_rows(runs))
    _write_csv(folder / "summary.csv", [asdict(point) for point in points])


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, with six digits per number."""
    if not rows:
        return
    shown = [
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    ]
    write_text(path, csv_text(shown))


def markdown_tables(points: Sequence[Point]) -> str:
    """Return one Markdown table per test: receptive fields in rows, variants in columns.

    For each variant it shows the mean over seeds with the lowest and highest of them, and the
    difference from its largest receptive field with a 95 % interval.
    """
    return "\n".join(
        _table(test, [point for point in points if point.test == test])
        for test in dict.fromkeys(point.test for point in points)
    )


def _table(test: str, points: Sequence[Point]) -> str:
    """Return the table of one test, under its name."""
    variants = list(dict.fromkeys(point.variant for point in points))
    cells = {(point.variant, point.rho): point for point in points}
    head = ["rho", "RF (pixels)", "RF (s)"]
    for variant in variants:
        head += [f"{variant}: mAP (seeds)", f"{variant}: difference from largest RF (95 % CI)"]
    table = Table(head)
    for rho in dict.fromkeys(point.rho for point in points):
        any_variant = next(point for point in points if point.rho == rho)
        sizes = dict.fromkeys((any_variant.rf_time_pixels, any_variant.rf_frequency_pixels))
        row = [rho, " x ".join(map(str, sizes)), f"{any_variant.rf_time_ms / 1000:.2f}"]
        for variant in variants:
            row += _cells(cells.get((variant, rho)))
        table.add_row(*row)
    return f"**{test}**\n\n{table.to_markdown()}"


def _cells(point: Point | None) -> list[str]:
    """Return the two cells of a variant: its mAP and the difference."""
    if point is None:
        return ["", ""]
    score = f"{point.mAP:.3f} ({point.seed_lowest:.3f}-{point.seed_highest:.3f})"
    if point.is_largest:
        return [score, ""]
    low, high = point.difference_low, point.difference_high
    return [score, f"{point.difference:+.3f} ({low:+.3f} to {high:+.3f})"]


def write_plot(path: Path, points: Sequence[Point], subtitle: str = "") -> None:
    """Write the plot of mAP against receptive field as PNG."""
    save_png(sweep_figure(points, subtitle), path)


def sweep_figure(points: Sequence[Point], subtitle: str = "") -> Figure:
    """Plot mAP against receptive field, one panel per test.

    A marker is the mean over seeds. The thick bar covers all seeds, the thin bar is the 95 %
    interval over clips. The lower axis is in pixels, the upper one in seconds.

    Args:
        points: Points from `summarise`.
        subtitle: Line under the title, such as the model and the data set.
    """
    tests = list(dict.fromkeys(point.test for point in points))
    variants = list(dict.fromkeys(point.variant for point in points))
    columns = min(_COLUMNS, len(tests))
    rows = -(-len(tests) // columns)
    width = max(columns * _PANEL_WIDTH, 6.4)
    height = rows * _PANEL_HEIGHT + _TOP
    figure = new_figure(width, height, "Receptive field and mAP", subtitle, _LEGEND)
    for number, test in enumerate(tests):
        row, column = divmod(number, columns)
        left = column * width / columns + 0.62
        bottom = height - (_TOP + (row + 1) * _PANEL_HEIGHT - _BOTTOM)
        axes = add_axes(figure, left, bottom, width / columns - 0.85, _PANEL_HEIGHT - 1.45)
        _panel(axes, [p for p in points if p.test == test], variants)
        axes.set_title(test, loc="left", fontsize=10, color=INK, fontweight="bold", pad=32)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(0.012, 1 - 0.74 / height),
        ncols=len(variants),
        frameon=False,
        fontsize=9,
    )
    return figure


def _panel(axes: Axes, points: Sequence[Point], variants: Sequence[str]) -> None:
    """Draw the panel of one test."""
    fields = {(p.rf_time_pixels, p.rf_frequency_pixels): p for p in points}
    square = all(time == frequency for time, frequency in fields)
    if square:  # a logarithmic scale of sizes
        axes.set_xscale("log")
        places = {size: float(size[0]) for size in fields}
    else:  # categories, the smallest area first
        places = {size: 1.0 + i for i, size in enumerate(sorted(fields, key=math.prod))}
    for number, variant in enumerate(variants):
        line, marker, colour = _STYLES[number % len(_STYLES)]
        mine = [point for point in points if point.variant == variant]
        # Shift the variants, so that their bars do not hide each other.
        shift = number - (len(variants) - 1) / 2
        x = [places[p.rf_time_pixels, p.rf_frequency_pixels] for p in mine]
        x = [at * (1 + 0.035 * shift) if square else at + 0.08 * shift for at in x]
        axes.plot(
            x, [p.mAP for p in mine], line, marker=marker, ms=5, color=colour, label=variant
        )
        axes.vlines(x, [p.mAP_low for p in mine], [p.mAP_high for p in mine], colour, lw=0.8)
        lowest, highest = [p.seed_lowest for p in mine], [p.seed_highest for p in mine]
        axes.vlines(x, lowest, highest, colour, lw=3.5, alpha=0.45)
    shape = "" if square else ", time x frequency"
    x_label = f"receptive field (spectrogram pixels{shape})"
    style_axes(axes, grid="y", x_label=x_label, y_label="mAP", label_size=8.5)
    ticks = [places[size] for size in fields]
    set_x_ticks(axes, ticks, [str(t) if square else f"{t} x {f}" for t, f in fields])
    add_top_axis(axes, ticks, [f"{point.rf_time_ms / 1000:.1f} s" for point in fields.values()])


def write_results(
    folder: Path, jobs: Sequence[Job], runs: Sequence[FinishedRun]
) -> tuple[list[Point], list[str]]:
    """Write tables, plot and conclusions of a sweep.

    Args:
        folder: Folder of the sweep: runs.csv, summary.csv, summary.md and sweep.png.
        jobs: All runs of the sweep.
        runs: The finished ones, at least one.

    Returns:
        Points of the table, and the conclusions as sentences.
    """
    points = summarise(runs)
    write_tables(folder, runs, points)
    config = jobs[0].config
    warning = not_trained_to_the_end(points, jobs[0].tests)
    warnings = [] if warning is None else [warning]
    conclusions = [*recommendations(runs, config.monitor), *warnings]
    written = [markdown_tables(points), *(f"{line}\n" for line in conclusions)]
    write_text(folder / "summary.md", "\n".join(written))
    epochs = f"{config.epochs} epochs of {config.excerpt_seconds:g} s excerpts"
    width = "" if config.width is None else f", width {config.width}"
    title = f"{config.model}{width} on {config.dataset}, {epochs}; {len(runs)} runs"
    write_plot(folder / "sweep.png", points, title)
    return points, conclusions


# The choice of a receptive field, in sentences


def recommendations(
    runs: Sequence[FinishedRun], monitor: str = _DEFAULT_MONITOR, samples: int = 1000
) -> list[str]:
    """Recommend a receptive field for each variant, a line each.

    Args:
        runs: Finished runs.
        monitor: Name of the metric in `FinishedRun.validation`.
        samples: Number of bootstrap samples.

    Raises:
        ConfigError: Runs were tested on different clips.
        DatasetError: A file of scores cannot be read.
    """
    variants = groups_by_variant(runs, TEST, samples)
    return [_recommendation(groups, monitor, len(variants) > 1) for groups in variants]


def _recommendation(groups: Sequence[Group], monitor: str, named: bool) -> str:
    """Recommend one of the groups, which are in the order of their receptive fields."""
    variant = f" for {groups[0].runs[0].run.variant}" if named else ""
    defined = [group for group in groups if not math.isnan(group.validation)]
    if not defined:
        return f"No recommendation{variant}: {monitor} is undefined in all runs."
    best, *others = sorted(
        defined, key=lambda group: group.validation, reverse=not lower_is_better(monitor)
    )
    if not others:
        return (
            f"No recommendation{variant}: there is only {_described(best)} to choose from. "
            f"Its test mAP is {best.metric.mean:.3f}."
        )
    differences = [best.metric.minus(group.metric, over_seeds=True) for group in others]
    by = "" if monitor == _DEFAULT_MONITOR else f" by {monitor}"
    compared = [
        f"against {_rho(group)}: {_text(difference)}"
        for group, difference in list(zip(others, differences, strict=True))[:_COMPARED]
    ]
    compared[0] = compared[0].replace(" (", f" ({100 * CONFIDENCE:g} % interval ", 1)
    parts = [
        f"Recommendation{variant}: {_described(best)}, the best on validation{by}.",
        f"Test mAP {best.metric.mean:.3f}; {'; '.join(compared)}.",
        *_verdict(groups, best, dict(zip(map(_rho, others), differences, strict=True))),
    ]
    if min(len(group.runs) for group in defined) == 1:
        parts.append("The intervals leave out the spread of values with one seed.")
    return " ".join(parts)


def _verdict(
    groups: Sequence[Group], best: Group, differences: dict[str, Interval]
) -> list[str]:
    """Say which groups are as good as the best on validation, or better, on the test."""
    by_size = [group for group in groups if _rho(group) in differences]
    equal = [g for g in by_size if differences[_rho(g)].low <= 0 <= differences[_rho(g)].high]
    better = [g for g in by_size if differences[_rho(g)].high < 0]
    parts = []
    if better:
        parts.append(
            f"{_list(better)} scored higher on the test clips, so the validation clips are too "
            "few or differ from them."
        )
    if not equal:
        return parts or ["All other values are worse."]
    are = "is" if len(equal) == 1 else "are"
    parts.append(f"{_list(equal)} {are} not distinguishable from it.")
    smallest = next(group for group in groups if group is best or group in equal)
    if smallest is not best:
        parts.append(f"You may take {_described(smallest)}, the smallest and cheapest of them.")
    return parts


def _rho(group: Group) -> str:
    return f"rho {group.runs[0].run.rho_text}"


def _list(groups: Sequence[Group]) -> str:
    """Return the values of rho as text: "rho 2, 7 and 11"."""
    *most, last = [group.runs[0].run.rho_text for group in groups]
    return f"rho {', '.join(most)} and {last}" if most else f"rho {last}"


def _described(group: Group) -> str:
    """Return rho with its receptive field: "rho 7 (135 pixels, 3.20 s)"."""
    first = group.runs[0]
    sizes = " x ".join(map(str, dict.fromkeys(first.rf_pixels)))
    return f"{_rho(group)} ({sizes} pixels, {first.rf_ms / 1000:.2f} s)"


def _text(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def not_trained_to_the_end(points: Iterable[Point], tests: Iterable[ExtraTest]) -> str | None:
    """Return a warning if networks have not learnt their training clips, otherwise None.

    Before that, the order of receptive fields shows how fast the networks learn.

    Args:
        points: Points of all tests.
        tests: The extra tests. Without one of the training clips nothing is known.
    """
    names = {test.name for test in tests if test.is_training_clips}
    on_training = [point for point in points if point.test in names]
    several = len({point.variant for point in on_training}) > 1
    low = [
        f"{point.variant + ' ' if several else ''}rho {point.rho} "
        f"({math.floor(point.seed_lowest * 1000) / 1000:.3f})"
        for point in on_training
        if point.seed_lowest < LEARNT
    ]
    if not low:
        return None
    return (
        f"Not trained to the end: {', '.join(low)}. These have a mAP below {LEARNT} on their "
        "training clips. Until then the results show how fast networks learn, so train longer "
        "before you compare: raise --epochs and choose another --output."
    )
