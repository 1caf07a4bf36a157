"""Metrics compared with scikit-learn, on annotated clips, with ties and undefined tags."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import (
    average_precision,
    best_f1_thresholds,
    check_single_label,
    decide,
    decide_class,
    decision_metrics,
    f1,
    log_loss,
    mean_average_precision,
    micro_metrics,
    positive_rate,
    probabilities,
    roc_auc,
)
from rfkeras.tasks import TASKS, check_task

RANKING = [(average_precision, average_precision_score), (roc_auc, roc_auc_score)]


@pytest.mark.parametrize(("ours", "theirs"), RANKING)
def test_ranking_metric_equals_scikit_learn_on_annotated_clips(ours, theirs, partly_labelled):
    scores, labels, mask = partly_labelled
    values = ours(scores, labels, mask).values
    for tag in range(3):
        known = mask[:, tag]
        assert values[tag] == theirs(labels[known, tag], scores[known, tag])


@pytest.mark.parametrize(("ours", "theirs"), RANKING)
def test_without_mask_the_macro_mean_equals_scikit_learn(ours, theirs):
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


def test_undefined_tags_have_a_reason_and_are_left_out_of_the_macro_mean(partly_labelled):
    precision = average_precision(*partly_labelled)
    auc = roc_auc(*partly_labelled)
    assert precision.reasons == ("", "", "", "no positives", "", "not annotated")
    assert auc.reasons == ("", "", "", "no positives", "no negatives", "not annotated")
    assert (precision.left_out, auc.left_out) == (2, 3)
    assert np.isnan(precision.values).tolist() == [False, False, False, True, False, True]
    assert precision.macro == pytest.approx(precision.values[[0, 1, 2, 4]].mean())
    assert auc.macro == pytest.approx(auc.values[:3].mean())


def test_masked_labels_have_no_effect(partly_labelled):
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


def test_the_mean_positive_rate_covers_the_same_tags_as_the_map():
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]])
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]])
    np.testing.assert_allclose(positive_rate(labels, mask).values, [0.5, np.nan, 2 / 3])
    assert positive_rate(labels, mask).macro == pytest.approx((0.5 + 2 / 3) / 2)


def test_a_random_ranking_reaches_the_mean_positive_rate():
    rng = np.random.default_rng(3)
    labels = rng.random((20_000, 4)) < [0.05, 0.1, 0.2, 0.4]
    chance = mean_average_precision(rng.random((20_000, 4)), labels)
    assert chance == pytest.approx(positive_rate(labels).macro, abs=0.01)


def test_f1_precision_and_recall_equal_scikit_learn_on_annotated_clips(partly_labelled):
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


def test_a_tag_without_positive_decisions_has_f1_zero_not_nan():
    ours = decision_metrics([[0], [0]], [[1], [0]])
    assert (ours.f1.macro, ours.precision.macro, ours.recall.macro) == (0, 0, 0)


def test_threshold_is_one_number_or_one_per_tag_and_includes_equal_scores():
    scores = [[0.5, 0.2], [0.4, 0.7]]
    assert decide(scores).tolist() == [[True, False], [False, True]]
    assert decide(scores, [0.4, 0.8]).tolist() == [[True, False], [True, False]]
    labels = [[1, 0], [1, 0]]
    assert f1(scores, labels).values[0] == pytest.approx(2 / 3)
    assert f1(scores, labels, threshold=[0.4, 0.8]).values[0] == 1


def test_micro_metrics_equal_scikit_learn_over_all_annotated_entries(partly_labelled):
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


def test_micro_metrics_without_annotations_are_nan():
    pooled = micro_metrics([[0.1]], [[0]], [[0]], [[0]])
    assert len(pooled) == 5
    assert all(np.isnan(value) for value in pooled.values())


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
def test_wrong_arrays_are_rejected_with_value_and_position(scores, labels, mask, says):
    with pytest.raises(ConfigError, match=says):
        average_precision(scores, labels, mask)


@pytest.mark.parametrize("threshold", [[0.5, 0.5, 0.5], np.nan, "half"])
def test_wrong_thresholds_are_rejected(threshold):
    with pytest.raises(ConfigError, match="threshold must be"):
        decide([[0.1, 0.2]], threshold)


@pytest.mark.parametrize("scale", [0.1, 3, 30, 3000])
def test_probabilities_are_sigmoid_and_softmax_at_any_size(scale):
    logits = scale * np.random.default_rng(0).normal(size=(50, 6))
    close = {"rtol": 1e-12, "atol": 1e-300}  # 0 in one may be denormal in the other
    np.testing.assert_allclose(probabilities(logits, "multi_label"), expit(logits), **close)
    single = probabilities(logits, "single_label")
    np.testing.assert_allclose(single, softmax(logits, axis=1), **close)
    np.testing.assert_allclose(single.sum(axis=1), 1)


def test_large_logits_do_not_tie():
    scores = probabilities(np.array([[18.0, 19.0, -50.0, -51.0]], np.float32), "multi_label")
    assert scores.dtype == np.float64
    assert len(np.unique(scores)) == 4


@pytest.mark.parametrize("task", TASKS)
def test_clip_logits_computes_the_same_scores(task):
    from rfkeras.layers.head import ClipLogits

    logits = 4 * np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    of_head = np.asarray(ClipLogits(task=task).scores(logits))
    np.testing.assert_allclose(probabilities(logits, task), of_head, atol=3e-7)


def test_loss_of_classes_equals_scikit_learn():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 4, 60)
    scores = rng.dirichlet(np.ones(4), 60)
    ours = log_loss(scores, np.eye(4)[truth], np.ones((60, 4)), "single_label")
    assert ours == pytest.approx(metrics.log_loss(truth, scores, labels=range(4)), rel=1e-9)


def test_loss_of_a_confident_error_is_finite():
    assert log_loss([[0, 1]], [[1, 0]], [[1, 1]], "single_label") == pytest.approx(
        16.118, abs=1e-3
    )


def test_loss_of_tags_is_the_sum_over_known_labels_divided_by_all():
    scores, labels = np.array([[0.9, 0.4]]), np.array([[1, 1]])
    assert log_loss(scores, labels, [[1, 0]], "multi_label") == pytest.approx(-np.log(0.9) / 2)


def test_the_highest_score_decides_and_the_first_of_equals():
    assert decide_class([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]]).tolist() == [
        [False, True, False],
        [True, False, False],
    ]


def test_classes_are_read_from_labels():
    assert check_single_label(np.eye(3)[[2, 0, 1]]).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("labels", "mask", "says"),
    [
        ([[1, 0], [1, 1]], None, r"exactly one class.*1 clip .*first clip 1 with 2"),
        ([[0, 0], [0, 1]], None, r"first clip 0 with 0"),
        ([[1, 0], [0, 1]], [[1, 1], [0, 1]], r"mask must be 1 everywhere.*first in clip 1"),
        ([[1, 0.5]], None, "labels must be 0 or 1"),
    ],
)
def test_clips_without_exactly_one_class_are_rejected(labels, mask, says):
    with pytest.raises(ConfigError, match=says):
        check_single_label(labels, mask)


def test_an_unknown_task_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'single_label'"):
        check_task("single-label")
    with pytest.raises(ConfigError, match="Unknown task"):
        probabilities(np.zeros((1, 2)), "softmax")


def random_tags(seed: int, decimals: int, clips: int = 120, tags: int = 5):
    """Return scores, labels and mask of tags with at least one known positive."""
    rng = np.random.default_rng(seed)
    labels = rng.random((clips, tags)) < rng.uniform(0.02, 0.9, tags)
    labels[0] = True
    scores = np.round(np.clip(0.6 * rng.random((clips, tags)) + 0.3 * labels, 0, 1), decimals)
    mask = rng.random((clips, tags)) < 0.7
    mask[0] = True
    return scores, labels, mask


@pytest.mark.parametrize("decimals", [1, 2, 15])
@pytest.mark.parametrize("seed", range(8))
def test_thresholds_have_the_best_f1_of_a_brute_force_search(seed, decimals):
    scores, labels, mask = random_tags(seed, decimals)
    chosen = best_f1_thresholds(scores, labels, mask)
    reached = f1(scores, labels, mask, threshold=chosen).values
    for tag in range(scores.shape[1]):
        known = mask[:, tag]
        truth, ranked = labels[known, tag], scores[known, tag]
        every = [f1_score(truth, ranked >= threshold) for threshold in np.unique(ranked)]
        assert reached[tag] == pytest.approx(max(every), abs=1e-12)
        precision, recall, _ = precision_recall_curve(truth, ranked)
        product = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert reached[tag] == pytest.approx(product.max(), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_is_halfway_between_neighbouring_scores(seed):
    scores, labels, mask = random_tags(seed, decimals=2)
    chosen = best_f1_thresholds(scores, labels, mask)
    for tag, threshold in enumerate(chosen):
        ranked = np.unique(np.append(scores[mask[:, tag], tag], 0.0))
        above = ranked[ranked > threshold].min()
        below = ranked[ranked < threshold].max()
        assert threshold == pytest.approx((above + below) / 2, abs=1e-12)


def test_the_highest_threshold_wins_at_equal_f1():
    # F1 is 2/3 for only the top clip and for all four.
    scores, labels = [[0.9], [0.5], [0.4], [0.3]], [[1], [0], [0], [1]]
    assert best_f1_thresholds(scores, labels)[0] == pytest.approx(0.7)


def test_a_tag_with_only_positives_gets_a_threshold_below_all_scores():
    assert best_f1_thresholds([[0.2], [0.6]], [[1], [1]])[0] == pytest.approx(0.1)
    assert best_f1_thresholds([[-2.0], [1.0]], [[1], [1]])[0] == -2  # logits: no space below


def test_tags_without_known_positives_keep_the_threshold_one_half(partly_labelled):
    chosen = best_f1_thresholds(*partly_labelled)
    assert chosen[[3, 5]].tolist() == [0.5, 0.5]
    assert chosen[2] == pytest.approx(0.25)  # one score for all: the tag applies to all


def test_neighbouring_floats_are_separated():
    upper = np.nextafter(0.7, 1)
    scores, labels = np.array([[0.7], [upper]]), np.array([[0], [1]])
    threshold = best_f1_thresholds(scores, labels)[0]
    assert ((scores >= threshold) == labels).all()


def test_thresholds_chosen_on_one_half_help_on_the_other():
    rng = np.random.default_rng(0)
    labels = rng.random((4000, 20)) < 0.08
    scores = 1 / (1 + np.exp(3 - 2 * labels - rng.normal(size=labels.shape)))
    chosen = best_f1_thresholds(scores[::2], labels[::2])
    at_half = f1(scores[1::2], labels[1::2]).macro
    assert f1(scores[1::2], labels[1::2], threshold=chosen).macro > at_half + 0.2


def test_195_tags_of_11000_clips_are_fast():
    rng = np.random.default_rng(0)
    labels = rng.random((11_000, 195)) < 0.05
    start = time.process_time()
    best_f1_thresholds(rng.random(labels.shape), labels)
    assert time.process_time() - start < 10  # measured: 0.4 s
