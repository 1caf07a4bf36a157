"""Recomputed statistics of batch normalisation, against NumPy."""

import keras
import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.layers import RandomTimeRoll, ReplicaDropout, ShakeShake
from rfkeras.training.run_dir import state_variables
from rfkeras.training.setup import recompute_statistics
from tests.helpers.small_tagger import batch, fit, small_tagger, training_model


def test_statistics_are_the_mean_over_the_batches():
    tagger = small_tagger()
    model = training_model(tagger, augmentation=[RandomTimeRoll()])
    fit(model, steps=3)
    norm, conv = tagger.get_layer("bn"), tagger.get_layer("conv")
    before = {v.path: v.numpy() for v in state_variables(model)}
    waveforms = [batch(seed=seed)[0] for seed in range(5)]
    recompute_statistics(model, waveforms)
    maps = [np.asarray(conv(tagger.get_layer("frontend")(w)), "float64") for w in waveforms]
    means = np.mean([m.mean((0, 1, 2)) for m in maps], axis=0)
    variances = np.mean([m.var((0, 1, 2)) for m in maps], axis=0)
    np.testing.assert_allclose(norm.moving_mean.numpy(), means, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variances, rtol=1e-4)
    assert norm.momentum == 0.9
    for variable in state_variables(model):  # weights and seeds stay
        if "moving" not in variable.path:
            np.testing.assert_array_equal(variable.numpy(), before[variable.path])


def test_each_layer_sees_inputs_normalised_by_the_batch():
    """The second layer's statistics depend on the first's being those of the batch."""
    inputs = keras.Input((8, 4, 2))
    first, second = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()
    outputs = keras.layers.GlobalAveragePooling2D()(second(first(inputs) * 3.0 + 1.0))
    model = training_model(keras.Model(inputs, outputs))
    rng = np.random.default_rng(0)
    first.moving_mean.assign([50.0, -50.0])
    batches = [rng.normal(s, 1 + s, (6, 8, 4, 2)).astype("float32") for s in range(3)]
    recompute_statistics(model, batches)
    np.testing.assert_allclose(second.moving_mean.numpy(), 1.0, atol=1e-4)
    np.testing.assert_allclose(second.moving_variance.numpy(), 9.0, rtol=2e-3)


def test_every_batch_has_random_draws_of_its_own():
    """Of x and -x Shake-Shake makes (2a - 1) x, with a from [0, 1): a third of the power."""
    inputs = keras.Input((8, 4, 2))
    norm = keras.layers.BatchNormalization()
    x = ShakeShake(per="batch", seed=1)([inputs, inputs * -1.0])
    outputs = keras.layers.GlobalAveragePooling2D()(norm(ReplicaDropout(0.5, seed=2)(x)))
    model = training_model(keras.Model(inputs, outputs))
    before = [v.numpy() for v in state_variables(model)]
    batches = np.random.default_rng(0).normal(size=(400, 6, 8, 4, 2)).astype("float32")
    recompute_statistics(model, batches)
    # (2a - 1)^2 has the deviation 0.3, its mean over 400 draws 0.015; dropout doubles both.
    np.testing.assert_allclose(norm.moving_variance.numpy(), 2 / 3, atol=4 * 0.03)
    first = norm.moving_variance.numpy()
    recompute_statistics(model, batches)
    np.testing.assert_array_equal(norm.moving_variance.numpy(), first)  # seeds came back
    for variable, value in zip(state_variables(model), before, strict=True):
        if "moving" not in variable.path:
            np.testing.assert_array_equal(variable.numpy(), value)


def test_no_batch_is_an_error_and_no_layer_is_none():
    with pytest.raises(ConfigError, match="at least one batch"):
        recompute_statistics(training_model(small_tagger()), [])
    recompute_statistics(training_model(small_tagger(norm=False)), [])
