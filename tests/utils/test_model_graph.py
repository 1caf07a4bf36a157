"""Layers inside nested, Sequential and subclassed models."""

import keras
import numpy as np
import pytest
from keras import layers

from rfkeras.errors import ConfigError
from rfkeras.frontend import Frontend, create_frontend, find_frontend
from rfkeras.layers import ClipLogits, find_head
from rfkeras.utils.model_graph import inlined, layer_tensor, part_of_model

AUDIO = np.random.default_rng(0).normal(0, 0.1, (2, 30000)).astype("float32")


@keras.saving.register_keras_serializable(package="test_model_graph")
class Holder(keras.layers.Layer):
    """A layer that holds a front-end as an attribute."""

    def __init__(self, frontend, **kwargs):
        super().__init__(**kwargs)
        self.parts = {"front": [frontend]}

    def call(self, inputs):
        return self.parts["front"][0](inputs)


class Subclassed(keras.Model):
    def __init__(self, frontend):
        super().__init__()
        self.frontend = frontend

    def call(self, inputs):
        return self.frontend(inputs)


@pytest.fixture(scope="module")
def frontend():
    return create_frontend("mel_32k", fixed_floor=True)


def functional(layer, shape=(None,)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def test_a_front_end_is_found_wherever_it_is(frontend):
    sequential = keras.Sequential([keras.Input((None,)), frontend])
    for model in (
        functional(frontend),
        sequential,
        keras.Sequential([frontend]),  # not built
        functional(functional(functional(frontend))),
        keras.Sequential([keras.Input((None,)), functional(sequential), layers.ReLU()]),
        functional(layers.TimeDistributed(frontend), (3, 4000)),
        functional(Holder(frontend)),
        Subclassed(frontend),
    ):
        assert find_frontend(model) is frontend
    shared = keras.Input((None,))
    model = keras.Model(shared, layers.Add()([frontend(shared), frontend(-shared)]))
    assert find_frontend(model) is frontend
    assert find_frontend(functional(layers.Dense(2), (3,))) is None


def test_two_front_ends_are_refused_by_name():
    one, two = (Frontend(8000, n_mels=8, name=name) for name in ("left", "right"))
    inputs = keras.Input((None,))
    model = keras.Model(inputs, layers.Add()([one(inputs), two(inputs)]))
    with pytest.raises(ConfigError, match=r"2 front-ends \('left', 'right'\)"):
        find_frontend(model)


def test_a_nested_model_is_laid_open_with_the_same_layers_and_values(frontend):
    tail = keras.Sequential(
        [keras.Input((None, 128, 1)), layers.Conv2D(3, 3), layers.Dropout(0.5), ClipLogits()]
    )
    inputs = keras.Input((None,))
    front = functional(functional(frontend))
    model = keras.Model(inputs, tail(front(inputs), training=False), name="whole")
    flat = inlined(model)
    assert [type(layer).__name__ for layer in flat.layers] == [
        "InputLayer",
        "Frontend",
        "Conv2D",
        "Dropout",
        "ClipLogits",
    ]
    assert flat.name == "whole"
    assert find_head(flat) is find_head(model) is tail.layers[-1]
    np.testing.assert_array_equal(flat(AUDIO), model(AUDIO))
    np.testing.assert_array_equal(flat(AUDIO, training=False), model(AUDIO))
    assert [id(w) for w in flat.weights] == [id(w) for w in model.weights]
    assert layer_tensor(flat, frontend, "input") is flat.inputs[0]
    assert inlined(flat) is flat


def test_an_argument_training_false_reaches_the_layers_of_a_nested_model():
    drop = keras.Sequential([keras.Input((8,)), layers.Dropout(0.9, seed=1)])
    inputs = keras.Input((8,))
    flat = inlined(keras.Model(inputs, drop(inputs, training=False)))
    ones = np.ones((3, 8), "float32")
    np.testing.assert_array_equal(flat(ones, training=False), ones)


def test_names_that_collide_are_explained():
    inputs = keras.Input((8,))
    parts = [functional(layers.Dense(2, name="same"), (8,)) for _ in range(2)]
    model = keras.Model(inputs, layers.Add()([part(inputs) for part in parts]))
    with pytest.raises(ConfigError, match=r"need different names.*same"):
        inlined(model)


def test_the_head_of_several_is_the_one_at_the_output():
    inputs = keras.Input((4, 4, 3))
    early, final = ClipLogits(name="early"), ClipLogits(name="final")
    model = keras.Model(inputs, [final(layers.Conv2D(3, 1)(inputs)), early(inputs)])
    assert find_head(model) is final
    assert find_head(functional(model, (4, 4, 3))) is final


def test_a_part_of_a_model_reads_its_start_alone():
    inputs = keras.Input((4,))
    start = layers.Dense(4, name="start")(inputs)
    end = layers.ReLU()(start)
    part = part_of_model(start, layers.Add()([start, end]), "part")
    values = np.float32([[-1, 2, 0, 3]])
    np.testing.assert_array_equal(part(values), values + np.maximum(values, 0))
    branches = (
        inputs,
        keras.ops.mean(inputs, axis=1, keepdims=True),
        layers.Dense(4)(inputs),
    )
    for other in branches:
        with pytest.raises(ValueError, match=r"depend|disconnected|Graph"):
            part_of_model(start, end + other)
