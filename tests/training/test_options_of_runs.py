"""Whole runs: every option changes in the results what it should change."""

import csv
import json
from dataclasses import replace
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.audio.io import AudioFormat
from rfkeras.errors import ConfigError
from rfkeras.frontend import create_frontend
from rfkeras.training import run, step
from rfkeras.training.data import open_inputs
from rfkeras.training.distributed import Workers
from rfkeras.training.losses import first_logits
from rfkeras.training.run_dir import RunFolder, read_log
from tests.helpers.whole_runs import configuration, equal, fit, snapshot, weights


@pytest.fixture(scope="module")
def plain(tone_folder, tmp_path_factory):
    """Return a run without options, and its folder."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    return fit(configuration(tone_folder), folder), folder


def test_the_same_options_give_the_same_weights(plain, tone_folder, tmp_path):
    assert equal(weights(plain[0].model), weights(again(tone_folder, tmp_path).model))


def again(tone_folder, tmp_path, at_epoch=None, **options):
    return fit(configuration(tone_folder, **options), tmp_path / "run", at_epoch)


@pytest.mark.parametrize(
    "options",
    [
        {"gain_db": 12.0},
        {"time_roll": True},
        {"spec_augment": True},
        {"mixup": 0.3},
        {"class_weights": "balanced"},
        {"clip_norm": 1e-3},
        {"optimizer": "adamw"},
        {"excerpts_per_clip": 2},
        {"final_learning_rate": 0.01},
        {"precision": "mixed_bfloat16"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_of_the_training_changes_the_weights(options, plain, tone_folder, tmp_path):
    changed = again(tone_folder, tmp_path, **options)
    assert not equal(weights(changed.model), weights(plain[0].model))


def test_random_gain_stays_within_its_limit_and_reaches_the_front_end(tone_folder, tmp_path):
    heard = []

    def listen(model, epoch):
        waveform = tf.fill([64, 1000], 0.1)
        for layer in model.waveform_augmentation:
            waveform = layer(waveform, training=True)
        heard.append(20 * np.log10(waveform.numpy()[:, 0] / 0.1))

    again(tone_folder, tmp_path, listen, gain_db=12.0, epochs=1)
    assert np.abs(heard[0]).max() <= 12.001
    assert np.ptp(heard[0]) > 12


def test_jit_compiles_the_step_with_xla(tone_folder, tmp_path):
    compiled = []
    function = tf.function

    def spy(*arguments, **options):
        compiled.extend((x.__name__, options.get("jit_compile")) for x in arguments)
        return function(*arguments, **options)

    for jit in (False, True):
        with mock.patch.object(step.tf, "function", spy):
            again(tone_folder, tmp_path / str(jit), jit=jit, epochs=1)
        assert (("compute", True) in compiled) == jit


def last_weights(folder, model):
    """Return the trainable weights after the last step."""
    return list(snapshot(folder / "run/checkpoints/last.npz").values())[
        : len(model.trainable_variables)
    ]


def test_ema_decay_determines_the_average(tone_folder, tmp_path):
    options = {"averaging": "ema", "final_weights": "average"}
    without = again(tone_folder, tmp_path / "0", ema_decay=0.0, **options)
    assert equal(weights(without.model), last_weights(tmp_path / "0", without.model))
    slow = again(tone_folder, tmp_path / "1", ema_decay=0.9, **options)
    assert not equal(weights(slow.model), last_weights(tmp_path / "1", slow.model))


@pytest.mark.parametrize("averaging", ["swa", "ema"])
def test_the_average_is_loaded_and_its_statistics_are_recomputed(
    averaging, tone_folder, tmp_path
):
    options = {"swa_start_epoch": 1, "swa_every": 1} if averaging == "swa" else {}
    fitted = again(
        tone_folder, tmp_path, averaging=averaging, final_weights="average", **options
    )
    last = snapshot(tmp_path / "run/checkpoints/last.npz")
    averages = [value for name, value in last.items() if name.endswith("_average")]
    assert equal(weights(fitted.model), averages)
    assert not equal(averages, last_weights(tmp_path, fitted.model))
    # The first statistics, from the batches of one epoch.
    layers = fitted.model._flatten_layers()
    norm = next(x for x in layers if isinstance(x, keras.layers.BatchNormalization))
    before = keras.Model(fitted.model.input, norm.input)
    batches = fitted.inputs.training_batches(0, fitted.inputs.steps_per_epoch)
    maps = [np.asarray(before(batch[0]), "float64") for batch in batches]
    means = np.mean([m.mean((0, 1, 2)) for m in maps], axis=0)
    np.testing.assert_allclose(norm.moving_mean.numpy(), means, rtol=1e-3, atol=1e-5)
    variances = np.mean([m.var((0, 1, 2)) for m in maps], axis=0)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variances, rtol=1e-3)


def test_the_best_epoch_is_loaded(tone_folder, tmp_path):
    scores = iter([0.3, 0.9, 0.5])
    validate = run.Validation.__call__

    def with_score(self):
        return {**validate(self), "val_mAP": next(scores)}

    with mock.patch.object(run.Validation, "__call__", with_score):
        fitted = again(tone_folder, tmp_path, epochs=3)
    assert fitted.score == 0.9
    best = list(snapshot(tmp_path / "run/checkpoints/best.npz").values())
    state = [*fitted.model.trainable_variables, *fitted.model.non_trainable_variables]
    assert equal([v.numpy() for v in state], best)
    assert not equal(weights(fitted.model), last_weights(tmp_path, fitted.model))
    choice = json.loads((tmp_path / "run/final_weights.json").read_text())
    assert choice["candidates"]["best"]["epoch"] == 2


def test_pruning_reaches_its_share_at_the_start_of_the_epoch_after_prune_epochs(
    tone_folder, tmp_path
):
    shares = {}

    def count_zeros(model, epoch):
        kernels = np.concatenate([kernel.numpy().ravel() for kernel, _ in model.masks])
        shares[epoch] = np.mean(kernels == 0)

    again(
        *(tone_folder, tmp_path, count_zeros),
        **{"epochs": 4, "prune_share": 0.5, "prune_epochs": 2, "initialization": "he"},
    )
    assert shares == pytest.approx({1: 0.0, 2: 0.25, 3: 0.5, 4: 0.5}, abs=1e-3)


def test_mean_and_deviation_are_those_of_the_training_split(plain):
    fitted, _ = plain
    own = create_frontend("perceptual_mel_22k")
    batches = fitted.inputs.training_batches(0, fitted.inputs.steps_per_epoch)
    own.adapt(batch[0] for batch in batches)
    frontend = fitted.model.get_layer("frontend")
    np.testing.assert_allclose(frontend.mean_db, own.mean_db, rtol=1e-5)
    np.testing.assert_allclose(frontend.std_db, own.std_db, rtol=1e-5)
    others, _ = fitted.inputs.evaluation_batches("test")
    own.adapt(others)
    assert np.abs(frontend.mean_db - own.mean_db).max() > 0.1


def test_features_of_whole_clips_train_the_same_model_as_their_waveforms(tone_folder, tmp_path):
    options = {"fixed_floor": True, "excerpt_seconds": 1.0, "mixup": 0.3, "averaging": "ema"}
    runs = {}
    for cache in (False, True):
        folder = tmp_path / str(cache)
        options |= {"cache_features": cache, "final_weights": "average", "ema_decay": 0.5}
        runs[cache] = again(tone_folder, folder, **options)
        assert (folder / "run/features").exists() == cache
    waves, cached = (runs[cache].model for cache in (False, True))
    assert cached.input_shape == (None, None)  # the finished model takes waveforms
    means, deviations = (
        [getattr(model.get_layer("frontend"), name).numpy() for model in (waves, cached)]
        for name in ("mean_db", "std_db")
    )
    assert np.abs((means[1] - means[0]) / deviations[0]).max() < 1e-3
    np.testing.assert_allclose(deviations[1], deviations[0], rtol=1e-3)
    losses = [read_log(tmp_path / f"{cache}/run/log.csv")["loss"] for cache in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)  # half floats
    assert not equal(weights(waves), weights(cached))


def test_a_model_for_features_takes_training_batches(tone_folder):
    config = configuration(tone_folder, fixed_floor=True, cache_features=True)
    inputs = open_inputs(config, AudioFormat(22050), None)
    model = step.build_training_model(inputs, tf.distribute.get_strategy())
    for variable in model.tagger.trainable_variables:
        variable.assign(tf.random.stateless_normal(variable.shape, (0, 1)))
    waveform = next(iter(inputs.training_batches(0, 1)))[0]
    logits = model(model.frontend.mel_db(waveform))
    np.testing.assert_allclose(logits, model.tagger(waveform), rtol=1e-3, atol=1e-4)
    assert np.std(logits) > 1e-3


def test_features_need_a_single_worker(tone_folder, tmp_path):
    config = configuration(tone_folder, fixed_floor=True, cache_features=True)
    workers = Workers(tf.distribute.get_strategy(), 0, 2)
    with pytest.raises(ConfigError, match="one worker.*Received: 2 workers"):
        run.fit(config, RunFolder(tmp_path), workers=workers)


def test_prior_bias_starts_the_classifier_at_the_frequencies_of_the_tags(tone_folder, tmp_path):
    still = {"learning_rate": 0.0, "final_learning_rate": 0.0, "epochs": 1}
    fitted = again(tone_folder, tmp_path, prior_bias=True, **still)
    split = fitted.inputs.dataset.split("train")
    expected = first_logits(split.labels, split.mask, "multi_label")
    beta = fitted.model.get_layer("classifier_bn").beta.numpy()
    np.testing.assert_allclose(beta, expected, rtol=1e-6)
    assert np.all(expected < -0.3)


def test_the_learning_rate_follows_the_schedule(tone_folder, tmp_path):
    again(
        *(tone_folder, tmp_path),
        **{"epochs": 4, "hold_epochs": 1, "decay_end_epoch": 3, "final_learning_rate": 0.002},
    )
    with (tmp_path / "run/log.csv").open(newline="") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.01, 0.006, 0.002, 0.002], rel=1e-5)


def test_windows_have_the_length_of_window_seconds(plain):
    inputs = plain[0].inputs
    batches, plan = inputs.evaluation_batches("validation")
    assert next(iter(batches)).shape[1] == 22050
    config = configuration(inputs.config.data_dir, window_seconds=0.25)
    batches, short = replace(inputs, config=config).evaluation_batches("validation")
    assert next(iter(batches)).shape[1] == round(0.25 * 22050)
    assert len(short.kept_rows) == len(plan.kept_rows)


def test_every_epoch_has_its_own_order_of_clips(plain):
    inputs = plain[0].inputs
    steps = inputs.steps_per_epoch
    epochs = []
    for epoch in range(3):
        batches = inputs.training_batches(epoch * steps, (epoch + 1) * steps)
        epochs.append(np.concatenate([batch[1].numpy() for batch in batches]))
    assert not any(np.array_equal(epochs[i], epochs[j]) for i, j in ((0, 1), (1, 2), (0, 2)))
