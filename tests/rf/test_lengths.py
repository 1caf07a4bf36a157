"""The shortest input of a model, from its layers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import zoo
from rfkeras.errors import ConfigError
from rfkeras.frontend import create_frontend
from rfkeras.layers import ClipLogits
from rfkeras.rf import shortest_input
from rfkeras.rf.lengths import length_problem


def audio_model(*body, before=()):
    x = inputs = keras.Input((None,))
    for layer in before:
        x = layer(x)
    x = create_frontend("mel_32k", fixed_floor=True)(x)
    for layer in body:
        x = layer(x)
    return keras.Model(inputs, ClipLogits()(layers.Conv2D(3, 1)(x)))


@pytest.mark.parametrize(
    ("body", "frames"),
    # Functions: layers named while tests are collected can have the names of later ones.
    [
        (lambda: (), 1),
        (lambda: (layers.Conv2D(4, 3),), 3),
        (
            lambda: (layers.Conv2D(4, 3), layers.MaxPooling2D(2), layers.Conv2D(4, (5, 3))),
            12,
        ),
        (lambda: (layers.Conv2D(4, 3, strides=2, padding="same"),), 1),
        (lambda: (layers.ZeroPadding2D(1), layers.Conv2D(4, 3, dilation_rate=(4, 1))), 7),
        (
            lambda: (
                keras.Sequential(
                    [layers.Conv2D(2, 7), keras.Sequential([layers.Conv2D(2, 4)])]
                ),
            ),
            10,
        ),
    ],
)
def test_the_shortest_audio_gives_every_layer_one_window(body, frames):
    model = audio_model(*body())
    shortest = shortest_input(model)
    assert 1 + shortest // 320 == frames or (frames == 1 and shortest == 1)
    rng = np.random.default_rng(0)
    assert np.isfinite(model(rng.normal(0, 0.1, (1, shortest)).astype("float32"))).all()
    if shortest > 1:
        assert length_problem(model, shortest - 1) is not None


def test_layers_before_the_front_end_count():
    crop = [
        lambda x: ops.expand_dims(x, -1),
        layers.Cropping1D((1000, 500)),
        lambda x: ops.squeeze(x, -1),
    ]
    assert shortest_input(audio_model(before=crop)) == 1501
    assert shortest_input(audio_model(layers.Conv2D(4, 4), before=crop)) == 1500 + 3 * 320


def test_models_of_the_zoo_pad_short_audio():
    assert shortest_input(zoo.create_model("resnet_rf", 3, width=2, frontend="mel_32k")) == 1
    assert shortest_input(zoo.create_model("resnet_rf", 3, width=2, frontend=None)) >= 1


def test_a_fixed_length_is_the_shortest():
    inputs = keras.Input((44100,))
    assert shortest_input(keras.Model(inputs, layers.Dense(3)(inputs))) == 44100


def test_a_model_for_certain_lengths_only_is_refused():
    inputs = keras.Input((None,))
    model = keras.Model(inputs, ops.reshape(inputs, (-1, 7, 441)))
    with pytest.raises(ConfigError, match="certain lengths"):
        shortest_input(model)


def test_models_without_one_input_are_refused():
    one, two = keras.Input((None,)), keras.Input((None,))
    with pytest.raises(ConfigError, match="must have one input"):
        shortest_input(keras.Model([one, two], one + two))

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ConfigError, match="no graph of layers"):
        shortest_input(Subclassed())
