"""Metrics against scikit-learn, on annotated clips, with ties and undefined tags."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import (
    average_precision,
    decide,
    decision_metrics,
    f1,
    mean_average_precision,
    micro_metrics,
    positive_rate,
    roc_auc,
)

RANKING = [(average_precision, average_precision_score), (roc_auc, roc_auc_score)]


@pytest.mark.parametrize(("ours", "theirs"), RANKING)
def test_ranking_metric_is_scikit_learns_on_the_annotated_clips(ours, theirs, partly_labelled):
    scores, labels, mask = partly_labelled
    values = ours(scores, labels, mask).values
    for tag in range(3):
        known = mask[:, tag]
        assert values[tag] == theirs(labels[known, tag], scores[known, tag])


@pytest.mark.parametrize(("ours", "theirs"), RANKING)
def test_without_mask_the_macro_mean_is_scikit_learns(ours, theirs):
    rng = np.random.default_rng(0)
    labels = rng.random((150, 5)) < 0.4
    scores = rng.normal(size=(150, 5)).astype(np.float32)
    assert ours(scores, labels).macro == pytest.approx(
        theirs(labels, scores, average="macro"), abs=1e-12
    )


def test_all_equal_scores_give_the_positive_rate_and_one_half(partly_labelled):
    scores, labels, mask = partly_labelled
    rate = labels[mask[:, 2], 2].mean()
    assert average_precision(scores, labels, mask).values[2] == pytest.approx(rate)
    assert roc_auc(scores, labels, mask).values[2] == 0.5


def test_undefined_tags_are_nan_with_a_reason_and_out_of_the_macro_mean(partly_labelled):
    precision = average_precision(*partly_labelled)
    auc = roc_auc(*partly_labelled)
    assert precision.reasons == ("", "", "", "no positives", "", "not annotated")
    assert auc.reasons == ("", "", "", "no positives", "no negatives", "not annotated")
    assert (precision.left_out, auc.left_out) == (2, 3)
    assert np.isnan(precision.values).tolist() == [False, False, False, True, False, True]
    assert precision.macro == pytest.approx(precision.values[[0, 1, 2, 4]].mean())
    assert auc.macro == pytest.approx(auc.values[:3].mean())


def test_labels_under_the_mask_mean_nothing(partly_labelled):
    scores, labels, mask = partly_labelled
    noise = np.where(mask, labels, 0.5)
    for metric in (average_precision, roc_auc, f1):
        np.testing.assert_array_equal(
            metric(scores, noise, mask).values, metric(scores, labels, mask).values
        )


def test_mean_average_precision_is_the_macro_mean_and_nan_without_positives(partly_labelled):
    expected = average_precision(*partly_labelled).macro
    assert mean_average_precision(*partly_labelled) == expected
    assert np.isnan(mean_average_precision([[0.1], [0.2]], [[0], [0]]))


def test_the_mean_positive_rate_is_over_the_tags_of_the_map():
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]])
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]])
    np.testing.assert_allclose(positive_rate(labels, mask).values, [0.5, np.nan, 2 / 3])
    assert positive_rate(labels, mask).macro == pytest.approx((0.5 + 2 / 3) / 2)


def test_a_random_ranking_reaches_the_mean_positive_rate():
    rng = np.random.default_rng(3)
    labels = rng.random((20_000, 4)) < [0.05, 0.1, 0.2, 0.4]
    chance = mean_average_precision(rng.random((20_000, 4)), labels)
    assert chance == pytest.approx(positive_rate(labels).macro, abs=0.01)


def test_f1_precision_recall_are_scikit_learns_on_the_annotated_clips(partly_labelled):
    scores, labels, mask = partly_labelled
    decisions = scores >= 0.5
    ours = decision_metrics(decisions, labels, mask)
    for tag in (0, 1, 2, 4):
        known = mask[:, tag]
        truth, decided = labels[known, tag], decisions[known, tag]
        assert ours.f1.values[tag] == pytest.approx(f1_score(truth, decided))
        assert ours.precision.values[tag] == pytest.approx(precision_score(truth, decided))
        assert ours.recall.values[tag] == pytest.approx(recall_score(truth, decided))
    assert ours.f1.reasons == ("", "", "", "no positives", "", "not annotated")


def test_a_silent_tag_with_positives_has_f1_zero_not_nan():
    ours = decision_metrics([[0], [0]], [[1], [0]])
    assert (ours.f1.macro, ours.precision.macro, ours.recall.macro) == (0, 0, 0)


def test_threshold_is_a_number_or_one_per_tag_and_reached_from_the_score_itself():
    scores = [[0.5, 0.2], [0.4, 0.7]]
    assert decide(scores).tolist() == [[True, False], [False, True]]
    assert decide(scores, [0.4, 0.8]).tolist() == [[True, False], [True, False]]
    labels = [[1, 0], [1, 0]]
    assert f1(scores, labels).values[0] == pytest.approx(2 / 3)
    assert f1(scores, labels, threshold=[0.4, 0.8]).values[0] == 1


def test_micro_metrics_are_scikit_learns_over_all_annotated_entries(partly_labelled):
    scores, labels, mask = partly_labelled
    decisions = decide(scores, 0.4)
    truth, ranked, decided = labels[mask], scores[mask], decisions[mask]
    expected = {
        "average_precision": average_precision_score(truth, ranked),
        "roc_auc": roc_auc_score(truth, ranked),
        "f1": f1_score(truth, decided),
        "precision": precision_score(truth, decided),
        "recall": recall_score(truth, decided),
    }
    assert micro_metrics(scores, labels, mask, decisions) == pytest.approx(expected)


def test_micro_metrics_of_nothing_annotated_are_nan():
    figures = micro_metrics([[0.1]], [[0]], [[0]], [[0]])
    assert len(figures) == 5
    assert all(np.isnan(value) for value in figures.values())


@pytest.mark.parametrize(
    ("scores", "labels", "mask", "says"),
    [
        ([0.1, 0.2], [0, 1], None, r"table \(clips, classes\).*\(2,\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), None, r"at least one clip"),
        ([["a"]], [[0]], None, "real numbers"),
        ([[0.1, np.nan]], [[0, 1]], None, "1 NaN or infinite.*clip 0, class 1"),
        ([[0.1, 0.2]], [[0], [1]], None, r"labels must have the shape.*\(2, 1\)"),
        ([[0.1, 0.2]], [[0, 0.5]], None, "0.5 at clip 0, class 1.*mask"),
        ([[0.1, 0.2]], [[0, np.nan]], None, "nan at clip 0, class 1"),
        ([[0.1, 0.2]], [["0", "1"]], None, "labels must be 0 and 1"),
        ([[0.1, 0.2]], [[0, 1]], [[2, 1]], "mask must be 0 or 1"),
    ],
)
def test_wrong_arrays_are_refused_with_what_and_where(scores, labels, mask, says):
    with pytest.raises(ConfigError, match=says):
        average_precision(scores, labels, mask)


@pytest.mark.parametrize("threshold", [[0.5, 0.5, 0.5], np.nan, "half"])
def test_wrong_thresholds_are_refused(threshold):
    with pytest.raises(ConfigError, match="threshold must be"):
        decide([[0.1, 0.2]], threshold)
