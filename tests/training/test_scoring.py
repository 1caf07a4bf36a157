"""Scores of a model, and the metrics of an epoch."""

import time

import keras
import numpy as np
import pytest
from sklearn import metrics

import zoo
from rfkeras.datasets.excerpts import EvaluationPlan
from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import log_loss
from rfkeras.training.clip_scores import model_task, predict_windows
from rfkeras.training.scoring import validation_metrics


def echo(logits, task):
    """Return a model with fixed logits and the head of a task."""
    model = zoo.create_model("resnet_rf", 3, width=2, task=task, frontend=None)
    model.predict = lambda batches, verbose: np.asarray(logits, np.float32)
    return model


LOGITS = np.random.default_rng(0).normal(0, 2, (5, 3)).astype("float32")
PLAN = EvaluationPlan.from_lengths([10, 25, 10], window=10, batch_size=5)


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_the_plan_averages_windows(task):
    powers = np.exp(LOGITS.astype("float64"))
    windows = {
        "multi_label": powers / (1 + powers),
        "single_label": powers / powers.sum(axis=1, keepdims=True),
    }[task]
    scores = PLAN.average(predict_windows(echo(LOGITS, task), None))
    expected = [windows[0], windows[1:4].mean(axis=0), windows[4]]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_a_model_without_a_head_is_multi_label():
    assert model_task(echo(LOGITS, "single_label")) == "single_label"
    inputs = keras.Input((3,))
    assert model_task(keras.Model(inputs, keras.layers.Dense(2)(inputs))) == "multi_label"


@pytest.mark.parametrize(
    ("activation", "task"), [("sigmoid", "multi_label"), ("softmax", "single_label")]
)
def test_a_model_that_ends_in_a_sigmoid_or_softmax_gives_its_own_scores(activation, task):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation=activation)(inputs))
    own = np.array([[0.04, 0.96], [0.3, 0.7], [0.1, 0.9]], np.float32)
    model.predict = lambda batches, verbose: own
    plan = EvaluationPlan.from_lengths([10, 15], window=10, batch_size=3)
    scores = plan.average(predict_windows(model, None))
    assert model_task(model) == task
    np.testing.assert_allclose(scores, [own[0], own[1:].mean(axis=0)], rtol=1e-6)


def test_metrics_of_an_epoch_of_a_tagger():
    rng = np.random.default_rng(1)
    labels, mask = rng.integers(0, 2, (80, 4)), rng.random((80, 4)) < 0.7
    scores = np.clip(0.3 * labels + 0.7 * rng.random((80, 4)), 0, 1)
    found = validation_metrics(scores, labels, mask, "multi_label")
    known = [(labels[m, tag], scores[m, tag]) for tag, m in enumerate(mask.T)]
    expected = {
        "val_loss": log_loss(scores, labels, mask, "multi_label"),
        "val_mAP": np.mean([metrics.average_precision_score(*pair) for pair in known]),
        "val_roc_auc": np.mean([metrics.roc_auc_score(*pair) for pair in known]),
        "val_f1": np.mean([metrics.f1_score(truth, s >= 0.5) for truth, s in known]),
    }
    assert found == pytest.approx(expected, rel=1e-9)
    assert list(found) == list(expected)


def test_metrics_of_an_epoch_of_a_classifier():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 90)
    scores = rng.dirichlet(np.ones(3), 90) + 0.5 * np.eye(3)[truth]
    scores /= scores.sum(axis=1, keepdims=True)
    labels = np.eye(3, dtype="float32")[truth]
    found = validation_metrics(scores, labels, np.ones_like(labels), "single_label")
    chosen = scores.argmax(axis=1)
    assert found == pytest.approx(
        {
            "val_loss": metrics.log_loss(truth, scores),
            "val_mAP": metrics.average_precision_score(labels, scores, average="macro"),
            "val_roc_auc": metrics.roc_auc_score(labels, scores, average="macro"),
            "val_f1": metrics.f1_score(truth, chosen, average="macro"),
            "val_accuracy": metrics.accuracy_score(truth, chosen),
        },
        rel=1e-6,
    )


def test_the_loss_of_a_classifier_equals_that_of_keras():
    truth, logits = np.array([0, 2, 1, 1, 0]), LOGITS
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(truth, logits)
    scores = predict_windows(echo(logits, "single_label"), None)
    found = validation_metrics(scores, np.eye(3)[truth], np.ones((5, 3)), "single_label")
    assert found["val_loss"] == pytest.approx(float(keras_loss), rel=1e-6)


def test_metrics_without_positives_are_nan_not_errors():
    found = validation_metrics([[0.2], [0.3]], [[0], [0]], [[1], [1]], "multi_label")
    assert [name for name, value in found.items() if np.isnan(value)] == [
        "val_mAP",
        "val_roc_auc",
        "val_f1",
    ]
    with pytest.raises(ConfigError, match="exactly one class"):
        validation_metrics([[0.2, 0.8]], [[1, 1]], [[1, 1]], "single_label")


def test_metrics_of_195_tags_of_11000_clips_take_seconds():
    rng = np.random.default_rng(0)
    labels = (rng.random((11_000, 195)) < 0.05).astype("float32")
    scores = rng.random(labels.shape)
    start = time.process_time()
    validation_metrics(scores, labels, np.ones_like(labels), "multi_label")
    assert time.process_time() - start < 15  # 1.5 s on the development machine
