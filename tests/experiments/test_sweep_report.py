"""The report of a sweep: means, intervals, paired differences, tables and the plot."""

import csv
import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.evaluation.bootstrap import bootstrap_mean_average_precision
from rfkeras.evaluation.result import read_scores, write_scores
from rfkeras.experiments.sweep import SweepRun
from rfkeras.experiments.sweep_report import (
    FinishedRun,
    best_on_validation,
    summarise,
    sweep_figure,
    write_tables,
)
from tests.helpers.plots import texts_overlap

CLIPS, TAGS = 150, 4
SIZES = {0: 23, 7: 135, 22: 615}


@pytest.fixture(scope="module")
def truth():
    labels = np.random.default_rng(0).random((CLIPS, TAGS)) < 0.3
    return labels, [f"clip {i}" for i in range(CLIPS)]


def scores_of(labels, skill, seed):
    noise = np.random.default_rng(seed).normal(size=labels.shape)
    return skill * labels + noise


@pytest.fixture(scope="module")
def runs(truth, tmp_path_factory):
    """Return two variants, three fields and two seeds, of which rho 7 and shake score best."""
    labels, keys = truth
    folder = tmp_path_factory.mktemp("scores")
    made = []
    for variant, more in (("plain", 0.0), ("shake", 0.5)):
        for rho, skill in ((0, 1.0), (7, 1.8), (22, 0.6)):
            for seed in (0, 1):
                path = folder / f"{variant}{rho}{seed}.npz"
                write_scores(path, scores_of(labels, skill + more, seed), labels, None, keys)
                size = (SIZES[rho], SIZES[rho])
                scores = {"test": path}
                made.append(
                    FinishedRun(
                        SweepRun(variant, rho, seed), size, 23.2 * size[0], skill, scores
                    )
                )
    return made


def test_mean_and_spread_match_scikit_learn(runs, truth):
    points = summarise(runs, samples=50)
    assert [(p.variant, p.rho) for p in points] == [
        (variant, rho) for variant in ("plain", "shake") for rho in ("0", "7", "22")
    ]
    for point in points:
        values = [
            average_precision_score(truth[0], read_scores(finished.scores["test"]).scores)
            for finished in runs
            if (finished.run.variant, str(finished.run.rho)) == (point.variant, point.rho)
        ]
        assert point.mAP == pytest.approx(np.mean(values))
        assert (point.seed_lowest, point.seed_highest) == pytest.approx(
            (min(values), max(values))
        )
        assert point.seed_deviation == pytest.approx(np.std(values, ddof=1))
        assert point.mAP_low < point.mAP < point.mAP_high


def test_differences_are_paired_against_the_largest_receptive_field(runs):
    points = {(p.variant, p.rho): p for p in summarise(runs, samples=200)}
    largest = points["plain", "22"]
    assert largest.is_largest
    assert (largest.difference, largest.difference_low, largest.difference_high) == (0, 0, 0)
    best = points["plain", "7"]
    assert best.difference == pytest.approx(best.mAP - largest.mAP)
    assert 0 < best.difference_low < best.difference < best.difference_high
    # Both share the same noise, so the paired interval is narrower than unpaired ones.
    paired = best.difference_high - best.difference_low
    apart = np.hypot(best.mAP_high - best.mAP_low, largest.mAP_high - largest.mAP_low)
    assert paired < 0.8 * apart


def test_paired_interval_comes_from_resampled_differences(truth):
    labels, keys = truth
    good, bad = (
        bootstrap_mean_average_precision([as_scores(labels, skill, keys)], samples=30)
        for skill in (2.0, 0.5)
    )
    generator = np.random.default_rng(0)
    differences = []
    for _ in range(30):
        rows = generator.integers(CLIPS, size=CLIPS)
        scores = [
            average_precision_score(labels[rows], scores_of(labels, skill, 3)[rows])
            for skill in (2.0, 0.5)
        ]
        differences.append(scores[0] - scores[1])
    value = good.mean - bad.mean
    low, high = np.quantile(differences, [0.025, 0.975])
    interval = good.minus(bad)
    assert (interval.low, interval.high) == pytest.approx((2 * value - high, 2 * value - low))


def as_scores(labels, skill, keys):
    from rfkeras.evaluation.result import ClipScores

    mask = np.ones(labels.shape, bool)
    return ClipScores(scores_of(labels, skill, 3), labels, mask, np.array(keys))


def test_runs_on_other_clips_cannot_be_compared(truth):
    labels, keys = truth
    scores = as_scores(labels, 1.0, keys)
    with pytest.raises(ConfigError, match="only be compared on the same clips"):
        bootstrap_mean_average_precision([scores, as_scores(labels, 1.0, keys[::-1])])
    with pytest.raises(ConfigError, match="only be compared on the same clips"):
        bootstrap_mean_average_precision([])


def test_error_names_a_file_without_scores(tmp_path):
    (tmp_path / "scores.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DatasetError, match=r"scores\.npz has no scores"):
        read_scores(tmp_path / "scores.npz")
    with pytest.raises(DatasetError, match="has no scores"):
        read_scores(tmp_path / "missing.npz")


def test_best_rho_is_chosen_on_validation(runs):
    chosen = best_on_validation(summarise(runs, samples=0))
    assert [(point.variant, point.rho) for point in chosen] == [("plain", "7"), ("shake", "7")]
    chosen = best_on_validation(summarise(runs, samples=0), "val_loss")
    assert [point.rho for point in chosen] == ["22", "22"]


def test_tables_have_one_row_per_run_and_per_point(runs, tmp_path):
    points = summarise(runs, samples=20)
    write_tables(tmp_path, runs, points)
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["seed"] for row in rows} == {"0", "1"}
    with (tmp_path / "summary.csv").open() as file:
        summary = list(csv.DictReader(file))
    assert [float(row["mAP"]) for row in summary] == pytest.approx(
        [point.mAP for point in points], rel=1e-5
    )
    assert [row["rf_time_pixels"] for row in summary] == ["23", "135", "615"] * 2


def test_fields_that_are_not_square_are_categories(runs):
    shaped = [
        dataclasses.replace(
            finished, rf_pixels=(135, {0: 31, 7: 135, 22: 55}[finished.run.rho])
        )
        for finished in runs
    ]
    points = summarise(shaped, samples=10)
    assert [p.rf_frequency_pixels for p in points] == [31, 55, 135] * 2
    assert [p.rho for p in points if p.is_largest] == ["7", "7"]
    figure = sweep_figure(points)
    assert texts_overlap(figure) == []
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks == ["135 x 31", "135 x 55", "135 x 135"]


def test_no_texts_overlap_in_the_plot(runs):
    figure = sweep_figure(summarise(runs, samples=20), "a model, a data set")
    assert texts_overlap(figure) == []
    axes = figure.axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["plain", "shake"]
    means = [p.mAP for p in summarise(runs, samples=0)]
    drawn = [y for line in axes.get_lines() for y in line.get_ydata()]
    assert drawn == pytest.approx(means)
