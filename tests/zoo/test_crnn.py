"""The recurrent baseline."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from rfkeras.errors import ConfigError
from rfkeras.rf import compose
from tests.helpers.architecture_support import (
    check_published_start,
    check_variant,
    trainable_parameters,
)
from zoo.crnn import plan_crnn

TINY = {"width": 4, "units": 6}
HE = {"frontend": None, "initialization": "he", **TINY}


def spectrogram(*shape):
    return np.random.default_rng(0).normal(size=(*shape, 1)).astype("float32")


def expected_parameters(width=64, units=32, channels=1, classes=20):
    """Count convolutions, normalisations, the three gates of each recurrent layer with two
    biases each, and the classifier.
    """
    count, previous = 0, channels
    for filters in (width, 2 * width, 2 * width, 2 * width):
        count += 9 * previous * filters + 2 * filters
        previous = filters
    for _ in range(2):
        count += 3 * (previous * units + units * units + 2 * units)
        previous = units
    return count + units * classes + 2 * classes


@pytest.mark.parametrize(
    ("options", "classes"),
    [({}, 20), ({"width": 16}, 3), ({"width": 6, "units": 5, "input_channels": 2}, 4)],
)
def test_parameters(options, classes):
    model = zoo.create_model("crnn", classes, frontend=None, **options)
    known = {"channels": options.get("input_channels", 1), "classes": classes}
    sizes = {key: value for key, value in options.items() if key != "input_channels"}
    assert trainable_parameters(model) == expected_parameters(**sizes, **known)


@pytest.mark.parametrize(("name", "width"), [("crnn_tiny", 16), ("crnn_small", 32)])
def test_documented_widths(name, width):
    model = zoo.create_model(name, 20, frontend=None)
    assert trainable_parameters(model) == expected_parameters(width=width)


def test_published_map_sizes():
    """Check that 1366 frames of 96 bands become 15 steps of one row with 128 channels."""
    model = zoo.create_model("crnn", 50, frontend=None)
    sizes, shape = [], (1, 1366, 96, 1)
    for layer in model.layers[1:]:
        if not isinstance(layer, keras.layers.Layer) or layer.name.startswith("gru"):
            break
        shape = layer.compute_output_shape(shape)
        if layer.name.startswith("pool"):
            sizes.append(tuple(shape[1:]))
    assert sizes == [(683, 48, 64), (228, 16, 128), (57, 4, 128), (15, 1, 128)]


@pytest.mark.parametrize("frames", [1, 2, 95, 96, 97, 431])
@pytest.mark.parametrize("n_mels", [1, 40, 128])
def test_any_length_and_number_of_mel_bands(frames, n_mels):
    model = zoo.create_model("crnn", 3, **HE)
    body = keras.Model(model.input, model.get_layer("classifier_bn").output)
    states = body(spectrogram(2, frames, n_mels))
    assert states.shape == (2, math.ceil(frames / 96), 1, 3)
    assert np.isfinite(states).all()
    np.testing.assert_allclose(
        model(spectrogram(2, frames, n_mels)), states[:, :, 0].numpy().mean(1), atol=1e-6
    )


def test_a_window_beyond_the_end_only_uses_real_rows():
    """Check that padding never wins: negative inputs keep their maximum."""
    model = zoo.create_model("crnn", 2, **HE)
    body = keras.Model(model.get_layer("pool4").input, model.get_layer("pool4").output)
    x = -1.0 - np.random.default_rng(0).uniform(size=(1, 1, 3, 8)).astype("float32")
    np.testing.assert_array_equal(body(x)[0, 0, 0], x[0, 0].max(0))


def test_mean_and_last_summary():
    mean = zoo.create_model("crnn", 3, **HE)
    last = zoo.create_model("crnn", 3, summary="last", **HE)
    last.set_weights(mean.get_weights())
    body = keras.Model(mean.input, mean.get_layer("classifier_bn").output)
    x = spectrogram(2, 300, 48)
    logits = np.asarray(body(x))[:, :, 0]
    assert logits.shape == (2, 4, 3)
    assert np.ptp(logits, axis=1).min() > 1e-5  # the states differ
    np.testing.assert_allclose(mean(x), logits.mean(1), atol=1e-6)
    np.testing.assert_allclose(last(x), logits[:, -1], atol=1e-6)


def test_a_recurrent_layer_is_the_published_recurrence():
    """Compute gates and candidate by hand, with the reset gate after the product."""
    layer = zoo.create_model("crnn", 3, **HE).get_layer("gru2")
    assert not layer.use_cudnn
    rng = np.random.default_rng(0)
    kernel, recurrent, bias = (rng.normal(size=w.shape) for w in layer.weights)
    layer.set_weights([kernel, recurrent, bias])
    x = rng.normal(size=(2, 5, 6)).astype("float32")
    state, states = np.zeros((2, 6)), []
    for step in range(5):
        inputs = np.split(x[:, step] @ kernel + bias[0], 3, axis=1)
        inner = np.split(state @ recurrent + bias[1], 3, axis=1)
        update, reset = (1 / (1 + np.exp(-(inputs[i] + inner[i]))) for i in (0, 1))
        candidate = np.tanh(inputs[2] + reset * inner[2])
        state = update * state + (1 - update) * candidate
        states.append(state)
    np.testing.assert_allclose(layer(x), np.stack(states, 1), atol=1e-5)


@pytest.mark.usefixtures("averaging_pools")
def test_each_state_sees_all_rows_and_all_frames_up_to_its_window():
    plan = zoo.model_info("crnn").plan_for()
    assert plan.time is None
    assert plan.frequency is None
    assert plan.minimum_frames == 1
    frames, n_mels = 4 * 96, 130  # whole windows along time, so none begins before the map
    model = zoo.create_model("crnn", 2, **HE)
    body = keras.Model(model.input, model.get_layer("classifier_conv").input)
    for variable in body.variables:
        if variable.name.endswith("kernel"):  # small and equal: no gate saturates
            variable.assign(np.full(variable.shape, 1 / np.prod(variable.shape[:-1])))
    x = tf.constant(np.random.default_rng(0).uniform(1, 2, (1, frames, n_mels, 1)), tf.float32)
    field = compose(plan.axis_layers(0))
    assert field.jump == 96
    for state in range(4):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(body(x)[0, state])
        gradient = np.abs(tape.gradient(value, x).numpy())[0, :, :, 0]
        seen = np.flatnonzero(gradient.max(1))
        end = min(field.window(state)[1], frames)
        np.testing.assert_array_equal(seen, np.arange(end))
        assert gradient.max(0).min() > 0  # every mel band


def test_xla_gives_the_same_results():
    x, y = spectrogram(4, 100, 48), np.eye(4, 3, dtype="float32")
    losses, weights = [], []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = zoo.create_model("crnn", 3, dropout=0.0, final_dropout=0.0, **HE)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
        losses.append(model.fit(x, y, batch_size=4, verbose=0).history["loss"][0])
        weights.append(model.get_weights())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_published_initialisation():
    check_published_start("crnn", **TINY)


def test_other_options_combine(tmp_path):
    options = {"pooling": [[1, 2], [2, 3], [2, 4], [4, 1]], "summary": "last"}
    check_variant("crnn", tmp_path, **TINY, **options)


def test_finer_pooling_gives_more_states():
    pooling = ((1, 2), (2, 3), (2, 4), (1, 4))
    model = zoo.create_model("crnn", 2, pooling=pooling, **HE)
    body = keras.Model(model.input, model.get_layer("classifier_bn").output)
    assert body(spectrogram(1, 40, 96)).shape == (1, 10, 1, 2)
    assert compose(plan_crnn(pooling).axis_layers(0)).jump == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be"),
        ({"units": 2.0}, "units must be"),
        ({"dropout": 1}, "dropout must be"),
        ({"summary": "first"}, "Unknown summary 'first'.*last, mean"),
        ({"pooling": ((2, 2), (3, 3))}, "pooling must be 4 pairs"),
        ({"pooling": ((2, 2), (3, 3), (4, 4), (4, 0))}, "pooling must be 4 pairs"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("crnn", 2, **{**HE, **options})
