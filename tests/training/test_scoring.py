"""Scores by the model's head, the figures of an epoch, and the end of a run."""

import csv
import json
import time
from dataclasses import replace

import keras
import numpy as np
import pytest
from sklearn import metrics

import zoo
from rfkeras.audio.io import AudioFormat
from rfkeras.config.train_config import TrainConfig, resolve
from rfkeras.datasets.excerpts import EvaluationPlan
from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import best_f1_thresholds, f1, log_loss
from rfkeras.evaluation.result import read_scores
from rfkeras.layers import find_head
from rfkeras.training import run as finishing
from rfkeras.training.data import open_inputs
from rfkeras.training.run_dir import RunFolder
from rfkeras.training.scoring import (
    model_task,
    predict_scores,
    score_clips,
    score_split,
    validation_figures,
)
from tests.helpers.constants import constants, zeros_of_kernels
from zoo.pretrained import load_model


class Echo:
    """A model whose logits are given, with a head of a task."""

    def __init__(self, logits, task):
        self.logits = np.asarray(logits, np.float32)
        self.layers = zoo.create_model("resnet_rf", 3, width=2, task=task, frontend=None).layers

    def predict(self, batches, verbose):
        return self.logits


LOGITS = np.random.default_rng(0).normal(0, 2, (5, 3)).astype("float32")
PLAN = EvaluationPlan.from_lengths([10, 25, 10], window=10, batch_size=5)


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_a_clips_score_is_the_mean_of_its_windows_scores(task):
    powers = np.exp(LOGITS.astype("float64"))
    windows = {
        "multi_label": powers / (1 + powers),
        "single_label": powers / powers.sum(axis=1, keepdims=True),
    }[task]
    scores = predict_scores(Echo(LOGITS, task), None, PLAN)
    expected = [windows[0], windows[1:4].mean(axis=0), windows[4]]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_a_model_without_a_head_is_multi_label():
    assert model_task(Echo(LOGITS, "single_label")) == "single_label"
    inputs = keras.Input((3,))
    assert model_task(keras.Model(inputs, keras.layers.Dense(2)(inputs))) == "multi_label"


def test_figures_of_an_epoch_of_a_tagger():
    rng = np.random.default_rng(1)
    labels, mask = rng.integers(0, 2, (80, 4)), rng.random((80, 4)) < 0.7
    scores = np.clip(0.3 * labels + 0.7 * rng.random((80, 4)), 0, 1)
    figures = validation_figures(scores, labels, mask, "multi_label")
    known = [(labels[m, tag], scores[m, tag]) for tag, m in enumerate(mask.T)]
    expected = {
        "val_loss": log_loss(scores, labels, mask, "multi_label"),
        "val_mAP": np.mean([metrics.average_precision_score(*pair) for pair in known]),
        "val_roc_auc": np.mean([metrics.roc_auc_score(*pair) for pair in known]),
        "val_f1": np.mean([metrics.f1_score(truth, s >= 0.5) for truth, s in known]),
    }
    assert figures == pytest.approx(expected, rel=1e-9)
    assert list(figures) == list(expected)


def test_figures_of_an_epoch_of_a_classifier():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 90)
    scores = rng.dirichlet(np.ones(3), 90) + 0.5 * np.eye(3)[truth]
    scores /= scores.sum(axis=1, keepdims=True)
    labels = np.eye(3, dtype="float32")[truth]
    figures = validation_figures(scores, labels, np.ones_like(labels), "single_label")
    chosen = scores.argmax(axis=1)
    assert figures == pytest.approx(
        {
            "val_loss": metrics.log_loss(truth, scores),
            "val_mAP": metrics.average_precision_score(labels, scores, average="macro"),
            "val_roc_auc": metrics.roc_auc_score(labels, scores, average="macro"),
            "val_f1": metrics.f1_score(truth, chosen, average="macro"),
            "val_accuracy": metrics.accuracy_score(truth, chosen),
        },
        rel=1e-6,
    )


def test_the_loss_of_a_classifier_is_that_of_keras():
    truth, logits = np.array([0, 2, 1, 1, 0]), LOGITS
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(truth, logits)
    scores = predict_scores(
        Echo(logits, "single_label"),
        None,
        EvaluationPlan.from_lengths([10] * 5, window=10, batch_size=5),
    )
    figures = validation_figures(scores, np.eye(3)[truth], np.ones((5, 3)), "single_label")
    assert figures["val_loss"] == pytest.approx(float(keras_loss), rel=1e-6)


def test_figures_without_positives_are_nan_not_errors():
    figures = validation_figures([[0.2], [0.3]], [[0], [0]], [[1], [1]], "multi_label")
    assert [name for name, value in figures.items() if np.isnan(value)] == [
        "val_mAP",
        "val_roc_auc",
        "val_f1",
    ]
    with pytest.raises(ConfigError, match="exactly one class"):
        validation_figures([[0.2, 0.8]], [[1, 1]], [[1, 1]], "single_label")


def test_figures_of_195_tags_of_11000_clips_take_seconds():
    rng = np.random.default_rng(0)
    labels = (rng.random((11_000, 195)) < 0.05).astype("float32")
    scores = rng.random(labels.shape)
    start = time.process_time()
    validation_figures(scores, labels, np.ones_like(labels), "multi_label")
    assert time.process_time() - start < 15  # 1.5 s where this was written


@pytest.fixture(scope="module")
def inputs(tone_folder):
    flags = {"dataset": "folder", "data_dir": str(tone_folder), "window_seconds": 0.5}
    config = resolve(TrainConfig, {**flags, "batch_size": 4})
    return open_inputs(config, AudioFormat(22050), None)


def pruned(inputs, task="multi_label"):
    """A small network with zeros in its kernels and scores far under 0.5."""
    keras.utils.set_random_seed(0)
    names = inputs.dataset.label_names
    model = zoo.create_model(
        "resnet_rf", label_names=names, width=4, rho=2, initialization="he", task=task
    )
    for _ in range(20):
        model(np.random.default_rng(0).normal(0, 0.2, (4, 11025)), training=True)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            values = variable.numpy()
            variable.assign(
                np.where(np.abs(values) < np.quantile(np.abs(values), 0.6), 0, values)
            )
    model.get_layer("classifier_bn").beta.assign([-3.0, -3.0, -3.0])
    return model


def zeros(model):
    return [int((v.numpy() == 0).sum()) for v in model.trainable_variables]


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """(trained model, run folder, result) of the end of a run."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    folder.root.mkdir()
    folder.log.write_text("epoch,loss,val_mAP,val_f1,seconds\n1,0.5,0.4,nan,3.2\n")
    model = pruned(inputs)
    return model, folder, finishing.finish(model, folder, inputs)


def test_finish_keeps_the_thresholds_of_the_validation_split(finished, inputs):
    trained, folder, _ = finished
    model = load_model(folder.model)
    expected = best_f1_thresholds(*score_clips(model, inputs, "validation")[:3])
    assert find_head(model).thresholds == pytest.approx(expected.tolist(), rel=1e-5)
    assert max(find_head(model).thresholds) < 0.45
    card = json.loads((folder.saved_model / "assets/model.json").read_text())
    assert card["thresholds"] == list(find_head(model).thresholds)
    assert card["task"] == "multi_label"
    assert find_head(trained).thresholds is None  # the trained model is left as it was


def test_the_test_report_decides_by_them_and_gives_one_half_beside(finished, inputs):
    _, folder, result = finished
    model = load_model(folder.model)
    arrays = score_clips(model, inputs, "test")[:3]
    thresholds = find_head(model).thresholds
    macro = json.loads((folder.report / "report.json").read_text())["summary"]["macro"]
    assert macro["f1"] == pytest.approx(f1(*arrays, threshold=thresholds).macro)
    assert macro["f1_at_half"] == pytest.approx(f1(*arrays).macro)
    assert macro["f1"] > macro["f1_at_half"]
    assert [row.threshold for row in result.report.tags] == list(thresholds)
    with (folder.report / "per_tag.csv").open(newline="") as file:
        assert [float(row["threshold"]) for row in csv.DictReader(file)] == list(thresholds)
    kept = read_scores(folder.report / "scores.npz")
    for array, stored in zip(arrays, (kept.scores, kept.labels, kept.mask), strict=True):
        np.testing.assert_allclose(stored, array, rtol=1e-6)
    assert list(kept.keys) == list(inputs.dataset.split("test").keys)
    half = score_split(model, inputs, "test", bootstrap_samples=0, threshold=0.5)
    assert half.report.summary["macro"]["f1"] == pytest.approx(macro["f1_at_half"])


def test_zeros_stay_zeros_in_the_saved_and_the_exported_model(finished):
    trained, folder, _ = finished
    loaded = load_model(folder.model)
    assert sum(zeros(trained)) > 1000
    assert zeros(loaded) == zeros(trained)
    kernels = zeros_of_kernels(loaded.variables)
    assert zeros_of_kernels(constants(folder.saved_model)) == kernels > 1000


def test_with_half_no_thresholds_are_kept(inputs, tmp_path, monkeypatch):
    half = replace(inputs, config=replace(inputs.config, thresholds="half"))
    monkeypatch.setattr(finishing, "verify", lambda *_: 0.0)
    folder = RunFolder(tmp_path)
    folder.log.write_text("epoch,loss\n1,0.5\n")
    result = finishing.finish(pruned(inputs), folder, half)
    assert find_head(load_model(folder.model)).thresholds is None
    assert {row.threshold for row in result.report.tags} == {0.5}


def test_a_single_label_run_ends_with_accuracy_and_no_thresholds(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(finishing, "verify", lambda *_: 0.0)
    folder = RunFolder(tmp_path)
    folder.log.write_text("epoch,loss,val_accuracy\n1,0.5,0.6\n")
    result = finishing.finish(pruned(inputs, "single_label"), folder, inputs)
    assert find_head(load_model(folder.model)).thresholds is None
    assert (folder.report / "confusion.png").is_file()
    labels = inputs.dataset.split("test").labels
    summary = result.report.summary
    assert summary["chance"]["accuracy"] == pytest.approx(labels.mean(axis=0).max())
    assert 0 <= summary["single_label"]["accuracy_low"] <= summary["single_label"]["accuracy"]
    card = json.loads((folder.saved_model / "assets/model.json").read_text())
    assert (card["task"], card["thresholds"]) == ("single_label", None)
