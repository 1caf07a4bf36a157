"""Parts of a run: its calls of `fit`, its start, and its end."""

import csv
import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import soundfile

import zoo
from rfkeras.audio.io import AudioFormat
from rfkeras.config.resolve import merge_options
from rfkeras.errors import DatasetError
from rfkeras.evaluation.metrics import best_f1_thresholds, f1
from rfkeras.evaluation.result import read_scores
from rfkeras.layers import find_head
from rfkeras.training import run
from rfkeras.training.data import open_inputs
from rfkeras.training.losses import first_logits
from rfkeras.training.run import finish, fit_calls
from rfkeras.training.run_dir import RunFolder, create_run_folder
from rfkeras.training.scoring import score_clips, score_split
from tests.helpers.constants import constants, zeros_of_kernels
from zoo.pretrained import load_model


def test_workers_that_read_different_data_are_an_error():
    own = {"train": "a", "validation": "b", "test": "c"}
    inputs = SimpleNamespace(fingerprints=own)

    def workers(first):
        return SimpleNamespace(index=1, gather=lambda mine: [first, mine])

    run._check_all_workers_read_the_same(inputs, workers(dict(own)))
    other = {**own, "train": "x", "test": "y"}
    with pytest.raises(DatasetError, match=r"0 and 1 read different data: .* train, test\."):
        run._check_all_workers_read_the_same(inputs, workers(other))


@pytest.mark.parametrize(
    ("start", "total", "calls"),
    [
        (0, 30, [(0, 30)]),
        (10, 30, [(10, 30)]),
        (13, 30, [(13, 20), (20, 30)]),
        (29, 30, [(29, 30)]),
        (30, 30, []),
    ],
)
def test_an_interrupted_epoch_is_finished_in_a_separate_call(start, total, calls):
    assert fit_calls(start, total, steps_per_epoch=10) == calls


@pytest.mark.parametrize(
    ("start", "frozen", "calls"),
    [
        (0, 20, [(0, 20), (20, 40)]),
        (13, 20, [(13, 20), (20, 40)]),
        (3, 20, [(3, 10), (10, 20), (20, 40)]),
        (23, 20, [(23, 30), (30, 40)]),
        (20, 20, [(20, 40)]),
        (0, float("inf"), [(0, 40)]),
        (40, 20, []),
    ],
)
def test_a_call_of_fit_ends_where_the_backbone_is_unfrozen(start, frozen, calls):
    assert fit_calls(start, 40, 10, frozen) == calls


def test_first_logits_are_the_log_odds_of_the_known_labels():
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    mask = np.array([[1, 1], [1, 1], [1, 1], [1, 0]], "float32")
    expected = [np.log(2.5 / 2.5), np.log(1.5 / 2.5)]
    odds = first_logits(labels, mask, "multi_label")
    np.testing.assert_allclose(odds, expected, rtol=1e-6)


def test_first_logits_of_classes_correspond_to_their_shares():
    labels = np.eye(3, dtype="float32")[[0, 0, 0, 1]]
    logits = first_logits(labels, np.ones_like(labels), "single_label")
    np.testing.assert_allclose(np.exp(logits), np.array([3.5, 1.5, 0.5]) / 5.5, rtol=1e-6)


@pytest.fixture(scope="module")
def inputs(tone_folder):
    flags = {"dataset": "folder", "data_dir": str(tone_folder), "window_seconds": 0.5}
    config = merge_options({**flags, "batch_size": 4})
    return open_inputs(config, AudioFormat(22050), None)


def started(inputs, folder, prior_bias):
    """Return a fresh tagger after `_start`."""
    config = replace(inputs.config, prior_bias=prior_bias)
    tagger = zoo.create_model(
        "resnet_rf", 3, width=2, rho=0, blocks=(1, 0, 0), allow_rf_change=True
    )
    run._start(tagger, replace(inputs, config=config), folder)
    return tagger


def test_mel_statistics_come_from_the_training_clips_alone(inputs, tmp_path):
    """Check the mean of every band, with other splits that are 40 dB quieter and louder."""
    scaled = {}
    for name, factor in (("train", 1.0), ("validation", 1e-2), ("test", 1e2)):
        split = inputs.dataset.split(name)
        paths = []
        for row, path in enumerate(split.paths):
            waveform, rate = soundfile.read(path, dtype="float32")
            paths.append(tmp_path / f"{name}{row}.wav")
            soundfile.write(paths[-1], factor * waveform, rate, subtype="FLOAT")
        scaled[name] = replace(split, paths=tuple(paths))
    inputs = replace(inputs, dataset=replace(inputs.dataset, splits=scaled))
    frontend = started(inputs, RunFolder(tmp_path), prior_bias=False).get_layer("frontend")
    # Excerpts are longer than the clips, which are repeated.
    clips = [soundfile.read(path)[0] for path in scaled["train"].paths]
    tiled = np.stack([np.tile(clip, 10) for clip in clips])
    db = frontend.mel_db(tiled.astype("float32")).numpy()
    np.testing.assert_allclose(frontend.mean_db, db.mean(axis=(0, 1, 3)), atol=0.2)
    varied = slice(0, 150)  # higher bands hardly vary and get the lower limit
    deviation = db.std(axis=(0, 1, 3))[varied]
    np.testing.assert_allclose(frontend.std_db.numpy()[varied], deviation, rtol=0.02)


@pytest.mark.parametrize("prior_bias", [True, False])
def test_the_classifier_starts_at_the_frequencies_of_the_tags(inputs, tmp_path, prior_bias):
    tagger = started(inputs, RunFolder(tmp_path), prior_bias)
    split = inputs.dataset.split("train")
    odds = first_logits(split.labels, split.mask, "multi_label") if prior_bias else np.zeros(3)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 11025)).astype("float32")
    np.testing.assert_allclose(tagger(noise), np.stack([odds, odds]), rtol=1e-5)
    assert np.abs(odds).max() > 0.5 or not prior_bias


def pruned(inputs, task="multi_label"):
    """Return a small network with zeros in its kernels and scores far below 0.5."""
    keras.utils.set_random_seed(0)
    names = inputs.dataset.label_names
    model = zoo.create_model(
        "resnet_rf",
        label_names=names,
        width=8,
        rho=2,
        blocks=(1, 1, 1),
        allow_rf_change=True,
        initialization="he",
        task=task,
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


def test_the_share_of_zeros_grows_from_the_second_epoch_on(tone_folder, tmp_path, monkeypatch):
    """Check what each epoch trains with: pruning is neither early nor late."""
    begun = []

    def on_epoch_begin(self, epoch, logs=None):
        kernels = [kernel.numpy() for kernel, _ in self.model.masks]
        zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
        begun.append(zeros / sum(kernel.size for kernel in kernels))

    monkeypatch.setattr(run.ProgressDisplay, "on_epoch_begin", on_epoch_begin)
    config = merge_options(
        {
            **{"dataset": "folder", "data_dir": str(tone_folder), "batch_size": 16},
            **{"width": 4, "rho": 0, "blocks": (1, 0, 0), "allow_rf_change": True},
            **{"excerpt_seconds": 0.2, "window_seconds": 1.0, "initialization": "he"},
            **{"epochs": 4, "prune_share": 0.8, "prune_epochs": 2, "devices": "cpu"},
        }
    )
    run.fit(config, create_run_folder(config, tmp_path / "run"))
    assert begun == pytest.approx([0.0, 0.4, 0.8, 0.8], abs=0.01)


def zeros(model):
    return [int((v.numpy() == 0).sum()) for v in model.trainable_variables]


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory, clean_process):
    """Return the trained model, the run folder and the result of a finished run."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    folder.root.mkdir()
    folder.log.write_text("epoch,loss,val_mAP,val_f1,seconds\n1,0.5,0.4,nan,3.2\n")
    model = pruned(inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", clean_process)
        return model, folder, finish(model, folder, inputs)


def test_the_model_contains_thresholds_from_the_validation_split(finished, inputs):
    trained, folder, _ = finished
    model = load_model(folder.model)
    expected = best_f1_thresholds(*score_clips(model, inputs, "validation")[:3])
    assert find_head(model).thresholds == pytest.approx(expected.tolist(), rel=1e-5)
    assert max(find_head(model).thresholds) < 0.45
    card = json.loads((folder.saved_model / "assets/model.json").read_text())
    assert card["thresholds"] == list(find_head(model).thresholds)
    assert card["task"] == "multi_label"
    assert find_head(trained).thresholds is None  # the trained model is unchanged


def test_the_report_uses_the_thresholds_and_also_one_half(finished, inputs):
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


def test_with_thresholds_half_the_model_stores_none(inputs, tmp_path):
    half = replace(inputs, config=replace(inputs.config, thresholds="half", export=False))
    folder = RunFolder(tmp_path)
    folder.log.write_text("epoch,loss\n1,0.5\n")
    result = finish(pruned(inputs), folder, half)
    assert find_head(load_model(folder.model)).thresholds is None
    assert {row.threshold for row in result.report.tags} == {0.5}


def test_a_single_label_run_reports_accuracy_without_thresholds(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "verify", lambda *_: 0.0)
    folder = RunFolder(tmp_path)
    folder.log.write_text("epoch,loss,val_accuracy\n1,0.5,0.6\n")
    result = finish(pruned(inputs, "single_label"), folder, inputs)
    assert find_head(load_model(folder.model)).thresholds is None
    assert (folder.report / "confusion.png").is_file()
    labels = inputs.dataset.split("test").labels
    summary = result.report.summary
    assert summary["chance"]["accuracy"] == pytest.approx(labels.mean(axis=0).max())
    assert 0 <= summary["single_label"]["accuracy_low"] <= summary["single_label"]["accuracy"]
    card = json.loads((folder.saved_model / "assets/model.json").read_text())
    assert (card["task"], card["thresholds"]) == ("single_label", None)
