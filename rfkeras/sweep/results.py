"""What the runs of a sweep show together: a row a run, and a row a receptive field."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfkeras.evaluation.paired import MeanAveragePrecision, mean_average_precision
from rfkeras.evaluation.scores import SCORES_FILE, ClipScores, read_scores
from rfkeras.files import write_text
from rfkeras.receptive_field.units import scale_of_preset
from rfkeras.sweep.extra_tests import TEST
from rfkeras.sweep.grid import Cell, Rho
from rfkeras.sweep.plan import Job, figures_of
from rfkeras.training.selection import Selection


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
