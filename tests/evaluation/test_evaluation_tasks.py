"""From logits to scores and decisions, for both tasks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics

from rfkeras.errors import ConfigError
from rfkeras.evaluation.tasks import (
    check_single_label,
    decide_class,
    log_loss,
    probabilities,
)
from rfkeras.tasks import TASKS, check_task


@pytest.mark.parametrize("scale", [0.1, 3, 30, 3000])
def test_probabilities_are_sigmoid_and_softmax_at_any_size(scale):
    logits = scale * np.random.default_rng(0).normal(size=(50, 6))
    close = {"rtol": 1e-12, "atol": 1e-300}  # what is 0 in one may be denormal in the other
    np.testing.assert_allclose(probabilities(logits, "multi_label"), expit(logits), **close)
    single = probabilities(logits, "single_label")
    np.testing.assert_allclose(single, softmax(logits, axis=1), **close)
    np.testing.assert_allclose(single.sum(axis=1), 1)


def test_large_logits_do_not_tie():
    scores = probabilities(np.array([[18.0, 19.0, -50.0, -51.0]], np.float32), "multi_label")
    assert scores.dtype == np.float64
    assert len(np.unique(scores)) == 4


@pytest.mark.parametrize("task", TASKS)
def test_the_head_of_a_model_computes_the_same(task):
    from rfkeras.layers.head import ClipLogits

    logits = 4 * np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    of_head = np.asarray(ClipLogits(task=task).scores(logits))
    np.testing.assert_allclose(probabilities(logits, task), of_head, atol=3e-7)


def test_loss_of_classes_is_scikit_learns():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 4, 60)
    scores = rng.dirichlet(np.ones(4), 60)
    ours = log_loss(scores, np.eye(4)[truth], np.ones((60, 4)), "single_label")
    assert ours == pytest.approx(metrics.log_loss(truth, scores, labels=range(4)), rel=1e-9)


def test_loss_of_a_certain_error_is_finite():
    assert log_loss([[0, 1]], [[1, 0]], [[1, 1]], "single_label") == pytest.approx(
        16.118, abs=1e-3
    )


def test_loss_of_tags_counts_known_labels_over_all():
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
        ([[1, 0], [1, 1]], None, r"exactly one class.*1 clips .*first clip 1 with 2"),
        ([[0, 0], [0, 1]], None, r"first clip 0 with 0"),
        ([[1, 0], [0, 1]], [[1, 1], [0, 1]], r"mask must be 1 everywhere.*first clip 1"),
        ([[1, 0.5]], None, "labels must be 0 or 1"),
    ],
)
def test_labels_that_are_not_single_are_refused(labels, mask, says):
    with pytest.raises(ConfigError, match=says):
        check_single_label(labels, mask)


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'single_label'"):
        check_task("single-label")
    with pytest.raises(ConfigError, match="Unknown task"):
        probabilities(np.zeros((1, 2)), "softmax")
