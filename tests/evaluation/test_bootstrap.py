"""The fast bootstrap, compared with scikit-learn on the drawn clips."""

from __future__ import annotations

import time
from dataclasses import fields, replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from rfkeras.errors import ConfigError
from rfkeras.evaluation import bootstrap
from rfkeras.evaluation.bootstrap import (
    MeanAveragePrecision,
    bootstrap_intervals,
    bootstrap_mean_average_precision,
    bootstrap_replicates,
    resample_counts,
)
from rfkeras.evaluation.metrics import average_precision, mean_average_precision, roc_auc
from rfkeras.evaluation.report import class_metrics, evaluate
from rfkeras.evaluation.result import ClipScores


def brute_force(scores, labels, mask, samples, seed):
    """Compute both metrics with scikit-learn on the repeated clips; NaN where undefined."""
    generator = np.random.default_rng(seed)
    precision = np.full((samples, scores.shape[1]), np.nan)
    auc = precision.copy()
    for resample in range(samples):
        clips = generator.integers(len(scores), size=len(scores))
        for tag in range(scores.shape[1]):
            drawn = clips[mask[clips, tag]]
            truth, ranked = labels[drawn, tag], scores[drawn, tag]
            if truth.any():
                precision[resample, tag] = average_precision_score(truth, ranked)
                if not truth.all():
                    auc[resample, tag] = roc_auc_score(truth, ranked)
    return precision, auc


def test_replicates_equal_scikit_learn_on_the_drawn_clips(partly_labelled, monkeypatch):
    monkeypatch.setattr(bootstrap, "_COUNTS_AT_ONCE", 1000)  # several portions
    ours = bootstrap_replicates(*partly_labelled, samples=23, seed=5)
    expected = brute_force(*partly_labelled, samples=23, seed=5)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("prior", [0.02, 0.5, 0.98])
def test_replicates_are_correct_with_few_and_many_positives_and_ties(decimals, prior):
    rng = np.random.default_rng(11)
    labels = rng.random((60, 3)) < prior
    scores = np.round(rng.normal(size=(60, 3)) + labels, decimals)
    mask = rng.random((60, 3)) < 0.8
    ours = bootstrap_replicates(scores, labels, mask, samples=15, seed=1)
    expected = brute_force(scores, labels, mask, samples=15, seed=1)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_intervals_are_the_percentiles_of_the_replicates(partly_labelled):
    intervals = bootstrap_intervals(*partly_labelled, samples=80, confidence=0.9, seed=2)
    precision, auc = bootstrap_replicates(*partly_labelled, samples=80, seed=2)
    for tag in range(3):
        np.testing.assert_allclose(
            intervals.average_precision[tag], np.quantile(precision[:, tag], [0.05, 0.95])
        )
        np.testing.assert_allclose(
            intervals.roc_auc[tag], np.quantile(auc[:, tag], [0.05, 0.95])
        )


def test_macro_intervals_are_the_percentiles_of_the_means_reflected(partly_labelled):
    intervals = bootstrap_intervals(*partly_labelled, samples=80, confidence=0.9, seed=2)
    precision, auc = bootstrap_replicates(*partly_labelled, samples=80, seed=2)
    for bounds, means, metric in (
        (intervals.macro_average_precision, precision[:, [0, 1, 2, 4]], average_precision),
        (intervals.macro_roc_auc, auc[:, :3], roc_auc),
    ):
        low, high = np.quantile(means.mean(axis=1), [0.05, 0.95])
        centre = metric(*partly_labelled).macro
        np.testing.assert_allclose(bounds, [2 * centre - high, 2 * centre - low])


def test_macro_bounds_stay_between_0_and_1():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    scores = labels + 0.55 * rng.normal(size=30)
    bounds = bootstrap_intervals(scores[:, None], labels[:, None]).macro_roc_auc
    assert 0.5 < bounds[0] < bounds[1] == 1


def test_the_macro_interval_of_many_rare_tags_contains_the_true_value():
    # Plain percentiles fail here: the bias of each tag is small, that of the mean is not.
    rng = np.random.default_rng(4)
    prior, separation = rng.uniform(0.01, 0.06, 40), rng.uniform(0.3, 2, 40)

    def draw(clips):
        labels = rng.random((clips, 40)) < prior
        return rng.normal(size=(clips, 40)) + separation * labels, labels

    true = mean_average_precision(*draw(60_000))
    held, held_by_percentiles = 0, 0
    for _ in range(25):
        test_set = draw(1000)
        low, high = bootstrap_intervals(*test_set, samples=150).macro_average_precision
        held += low <= true <= high
        plain = 2 * mean_average_precision(*test_set) - np.array([high, low])
        held_by_percentiles += plain[0] <= true <= plain[1]
    assert held >= 20
    assert held_by_percentiles <= 12


def test_undefined_tags_have_no_interval_and_no_resamples(partly_labelled):
    intervals = bootstrap_intervals(*partly_labelled, samples=20)
    assert np.isnan(intervals.average_precision).any(axis=1).tolist() == [0, 0, 0, 1, 0, 1]
    assert np.isnan(intervals.roc_auc).any(axis=1).tolist() == [0, 0, 0, 1, 1, 1]
    assert intervals.resamples_with_tag.tolist() == [20, 20, 20, 0, 20, 0]


def test_a_tag_with_one_positive_is_undefined_in_about_a_third_of_the_resamples():
    scores, labels = np.arange(50.0)[:, np.newaxis], np.zeros((50, 1))
    labels[40] = 1
    held = bootstrap_intervals(scores, labels, samples=1000).resamples_with_tag[0]
    assert held == pytest.approx(1000 * (1 - 0.98**50), abs=50)


def test_the_seed_determines_the_interval(partly_labelled):
    first, again, other = (
        bootstrap_intervals(*partly_labelled, samples=50, seed=seed).macro_average_precision
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_resamples_all_bounds_are_undefined(partly_labelled):
    intervals = bootstrap_intervals(*partly_labelled, samples=0)
    assert np.isnan(intervals.average_precision).all()
    assert np.isnan(intervals.macro_average_precision).all()


def test_the_interval_has_the_documented_coverage():
    # 100 test sets of 300 clips; the documented simulation found 94.9 %.
    rng = np.random.default_rng(0)
    labels = rng.random((400_000,)) < 0.1
    true = average_precision_score(labels, rng.normal(size=400_000) + 1.5 * labels)
    labels = rng.random((300, 100)) < 0.1
    scores = rng.normal(size=(300, 100)) + 1.5 * labels
    low, high = bootstrap_intervals(scores, labels, samples=400).average_precision.T
    assert 0.87 <= ((low <= true) & (true <= high)).mean() <= 0.995


def test_twenty_tags_5000_clips_and_1000_resamples_take_less_than_30_s():
    rng = np.random.default_rng(0)
    labels = rng.random((5000, 20)) < 0.3
    scores = rng.normal(size=(5000, 20)) + labels
    start = time.process_time()
    bootstrap_intervals(scores, labels, samples=1000)
    assert time.process_time() - start < 30  # measured: 2 s


@pytest.mark.parametrize(
    ("options", "says"),
    [({"samples": -1}, "samples must be 0 or more"), ({"confidence": 1.0}, "confidence must")],
)
def test_wrong_options_are_rejected(options, says):
    with pytest.raises(ConfigError, match=says):
        bootstrap_intervals([[0.1], [0.2]], [[0], [1]], **options)


def test_intervals_are_of_1000_resamples_unless_told_otherwise():
    rng = np.random.default_rng(0)
    labels = np.eye(3)[rng.integers(0, 3, 60)]
    scores = rng.random((60, 3)) + 0.3 * labels
    implicit = bootstrap_intervals(scores, labels)
    explicit = bootstrap_intervals(scores, labels, samples=1000, confidence=0.95, seed=0)
    for field in fields(implicit):
        values = (getattr(implicit, field.name), getattr(explicit, field.name))
        np.testing.assert_array_equal(*values)
    implicit = class_metrics(scores, labels)
    explicit = class_metrics(scores, labels, samples=1000, confidence=0.95, seed=0)
    np.testing.assert_array_equal(implicit.accuracy_interval, explicit.accuracy_interval)
    names = {"label_names": list("abc")}
    implicit = evaluate(scores, labels, **names)
    explicit = evaluate(scores, labels, **names, bootstrap_samples=1000, seed=0)
    assert implicit.tags == explicit.tags
    assert repr(implicit.summary) == repr(explicit.summary)  # some are NaN


def test_the_interval_of_several_models_is_around_their_mean(partly_labelled):
    scores, labels, mask = partly_labelled
    others = np.random.default_rng(1).permutation(scores)
    models = [ClipScores(each, labels, mask, np.array([])) for each in (scores, others)]
    result = bootstrap_mean_average_precision(models, samples=50, seed=3)
    values = [average_precision(each, labels, mask).macro for each in (scores, others)]
    means = np.mean(
        [
            np.nanmean(bootstrap_replicates(each, labels, mask, samples=50, seed=3)[0], axis=1)
            for each in (scores, others)
        ],
        axis=0,
    )
    low, high = np.quantile(means, [0.025, 0.975])
    centre = np.mean(values)
    assert result.interval.value == pytest.approx(centre)
    np.testing.assert_allclose(
        [result.interval.low, result.interval.high], [2 * centre - high, 2 * centre - low]
    )


def test_the_interval_of_a_good_model_stays_below_1():
    labels = np.arange(40)[:, None] % 8 == np.arange(4)
    scores = np.where(labels, 0.9, 0.1)
    scores[7] = 0.95  # a clip without a tag is ranked first
    model = ClipScores(scores, labels, np.ones_like(labels), np.array([]))
    interval = bootstrap_mean_average_precision([model]).interval
    assert interval.low < interval.value < interval.high == 1.0


def test_groups_of_models_are_compared_by_paired_resamples(partly_labelled):
    scores, labels, mask = partly_labelled
    better, worse = (
        bootstrap_mean_average_precision([ClipScores(each, labels, mask, np.array([]))], 50)
        for each in (scores, np.random.default_rng(1).permutation(scores))
    )
    difference = better.minus(worse)
    assert difference.value == better.mean - worse.mean
    paired = better.replicates - worse.replicates
    high, low = 2 * difference.value - np.quantile(paired, [0.025, 0.975])
    np.testing.assert_allclose([difference.low, difference.high], [low, high])
    fewer = replace(worse, model_replicates=worse.model_replicates[:, 1:])
    with pytest.raises(ConfigError, match="same number of resamples. Received 50 and 49"):
        better.minus(fewer)


def test_differences_can_include_the_spread_between_seeds():
    # The scores are the same on all resamples of the clips, so only the seeds vary: three
    # values with a standard deviation of 0.01 in each group.
    first, second, single = (
        MeanAveragePrecision(np.array(values), np.repeat(np.array(values)[:, None], 20_000, 1))
        for values in ([0.60, 0.61, 0.62], [0.50, 0.51, 0.52], [0.45])
    )
    over_clips = first.minus(second)
    assert over_clips.low == pytest.approx(over_clips.high) == pytest.approx(0.1)
    difference = first.minus(second, over_seeds=True)
    assert difference.value == pytest.approx(0.1)
    drawn = means_of_draws(first.values, 1) - means_of_draws(second.values, 2)
    assert np.std(drawn) == pytest.approx(0.01 * np.sqrt(2 / 3), rel=0.03)
    bounds = 2 * 0.1 - np.quantile(drawn, [0.975, 0.025])
    np.testing.assert_allclose([difference.low, difference.high], bounds, atol=1e-3)
    # One model has no spread, and adds none.
    assert single.minus(single, over_seeds=True) == single.minus(single)
    half = second.minus(single, over_seeds=True)
    assert half.high - half.low < 0.9 * (difference.high - difference.low)
    assert first.minus(second, over_seeds=True) == difference  # deterministic


def means_of_draws(values, seed):
    """Return means of draws with replacement, with the variance of the mean of the values."""
    draws = np.random.default_rng(seed).choice(values, (20_000, len(values)))
    spread = np.sqrt(len(values) / (len(values) - 1))
    return values.mean() + spread * (draws.mean(axis=1) - values.mean())


def test_many_clips_are_drawn_in_small_portions():
    portions = [len(counts) for _, counts in resample_counts(10_000, 1000, 0)]
    assert sum(portions) == 1000
    assert max(portions) * 10_000 <= bootstrap._COUNTS_AT_ONCE
