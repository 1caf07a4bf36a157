"""Whether a model's outputs are logits or probabilities."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from rfkeras.layers import ClipLogits, model_outputs


@keras.saving.register_keras_serializable(package="test_outputs")
class Own(keras.layers.Layer):
    """A layer whose code is unknown, with or without an activation."""

    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def call(self, inputs):
        return self.activation(inputs)

    def compute_output_shape(self, shape):
        return shape


def sigmoid(x):
    return layers.Dense(3, activation="sigmoid")(x)


def softmax(x):
    return layers.Dense(3, activation="softmax")(x)


def chart(x):
    return ops.reshape(layers.Dense(30)(x), (-1, 2, 5, 3))


def nested(x):
    end = [layers.Dense(3), layers.Activation("sigmoid", dtype="float32")]
    return keras.Sequential([keras.Input((8,)), keras.Sequential(end)])(x)


PROBABLE, LOGIT = "probabilities", "logits"
KNOWN = {
    "dense": (layers.Dense(3), LOGIT, "multi_label"),
    "dense sigmoid": (sigmoid, PROBABLE, "multi_label"),
    "dense softmax": (softmax, PROBABLE, "single_label"),
    "hard sigmoid": (layers.Dense(3, activation="hard_sigmoid"), PROBABLE, "multi_label"),
    "softmax layer": (lambda x: layers.Softmax()(layers.Dense(3)(x)), PROBABLE, "single_label"),
    "activation layer": (
        layers.Dense(3, activation=layers.Softmax()),
        PROBABLE,
        "single_label",
    ),
    "sigmoid operation": (lambda x: ops.sigmoid(layers.Dense(3)(x)), PROBABLE, "multi_label"),
    "softmax operation": (
        lambda x: ops.nn.softmax(layers.Dense(3)(x)),
        PROBABLE,
        "single_label",
    ),
    "log softmax": (lambda x: ops.log_softmax(layers.Dense(3)(x)), LOGIT, "single_label"),
    "nested": (nested, PROBABLE, "multi_label"),
    "cast, reshape, dropout": (
        lambda x: ops.cast(ops.reshape(layers.Dropout(0.5)(nested(x)), (-1, 3)), "float32"),
        PROBABLE,
        "multi_label",
    ),
    "clipped": (lambda x: ops.clip(sigmoid(x), 1e-7, 1 - 1e-7), PROBABLE, "multi_label"),
    "clipped logits": (lambda x: ops.clip(layers.Dense(3)(x), -9, 9), LOGIT, "multi_label"),
    "ensemble": (lambda x: layers.Average()([nested(x), sigmoid(x)]), PROBABLE, "multi_label"),
    "one output a tag": (
        lambda x: layers.Concatenate()(
            [layers.Dense(1, activation="sigmoid")(x) for _ in range(3)]
        ),
        PROBABLE,
        "multi_label",
    ),
    "mean of a map": (
        lambda x: layers.GlobalAveragePooling2D()(
            layers.Conv2D(3, 1, activation="sigmoid")(chart(x))
        ),
        PROBABLE,
        "multi_label",
    ),
    "head": (lambda x: ClipLogits(task="single_label")(chart(x)), LOGIT, "single_label"),
    "sigmoid after head": (
        lambda x: ops.sigmoid(ClipLogits()(chart(x))),
        PROBABLE,
        "multi_label",
    ),
    "sigmoid before head": (
        lambda x: ClipLogits()(ops.sigmoid(chart(x))),
        PROBABLE,
        "multi_label",
    ),
    "normalised": (
        lambda x: layers.BatchNormalization()(layers.Dense(3)(x)),
        LOGIT,
        "multi_label",
    ),
    "own, stated": (lambda x: layers.Activation("linear")(Own()(x)), LOGIT, "multi_label"),
    "own, limited": (lambda x: ops.clip(Own()(x), 0, 1), PROBABLE, "multi_label"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_last_layers_show_what_the_outputs_are(name):
    end, kind, task = KNOWN[name]
    inputs = keras.Input((8,))
    model = keras.Model(inputs, end(inputs))
    outputs = model_outputs(model)
    assert (outputs.kind, outputs.task, outputs.assumed) == (kind, task, None)
    assert (outputs.head is not None) == ("head" in name)
    values = model(np.random.default_rng(0).normal(0, 3, (4, 8)).astype("float32"))
    scores = np.asarray(outputs.scores(values))
    if kind == PROBABLE:
        np.testing.assert_array_equal(scores, values)
    back = outputs.logits(values)
    again = ops.sigmoid(back) if task == "multi_label" else ops.softmax(back)
    np.testing.assert_allclose(again, scores, atol=2e-6)


def self_weighted(x):
    p = ops.sigmoid(chart(x))
    return ops.sum(p * p, axis=(1, 2)) / ops.sum(p, axis=(1, 2))


def attention(x):
    p, weight = ops.sigmoid(chart(x)), ops.exp(ops.tanh(chart(x)))
    return ops.sum(p * weight, axis=(1, 2)) / ops.sum(weight, axis=(1, 2))


def softmax_attention(x):
    parts = ops.reshape(x, (-1, 4, 2))
    return ops.sum(sigmoid(parts) * ops.softmax(layers.Dense(3)(parts), axis=1), axis=1)


PROBABILITIES_BY_VALUE = {
    "temperature": lambda x: ops.sigmoid(layers.Dense(3)(x) / 2.0),
    "complement": lambda x: 1 - sigmoid(x),
    "part": lambda x: layers.Rescaling(0.5)(sigmoid(x)),
    "product": lambda x: layers.Multiply()([sigmoid(x), sigmoid(x)]),
    "noisy or": lambda x: 1 - ops.prod(1 - ops.sigmoid(chart(x)), axis=(1, 2)),
    "self weighted": self_weighted,
    "attention": attention,
    "softmax attention": softmax_attention,
    "square root": lambda x: ops.sqrt(sigmoid(x)),
    "shifted tanh": lambda x: (layers.Dense(3, activation="tanh")(x) + 1) / 2,
    "written out": lambda x: 1 / (1 + ops.exp(-layers.Dense(3)(x))),
    "function": layers.Dense(3, activation=lambda x: ops.sigmoid(x)),
    "layer as activation": layers.Dense(3, activation=layers.Activation("sigmoid")),
    "own layer": lambda x: Own("sigmoid")(x),
    "Lambda": layers.Lambda(lambda x: ops.sigmoid(x)),
    "one of two": lambda x: ops.softmax(ops.reshape(layers.Dense(6)(x), (-1, 3, 2)))[..., 1],
    "before a head": lambda x: ClipLogits()(1 - ops.sigmoid(chart(x))),
    "nested": lambda x: keras.Sequential(
        [keras.Input((8,)), layers.Dense(3, activation="sigmoid"), layers.Rescaling(-1.0, 1.0)]
    )(x),
}


@pytest.mark.parametrize("name", PROBABILITIES_BY_VALUE)
def test_values_that_are_always_between_0_and_1_are_probabilities(name):
    inputs = keras.Input((8,))
    outputs = model_outputs(keras.Model(inputs, PROBABILITIES_BY_VALUE[name](inputs)))
    assert (outputs.kind, outputs.task, outputs.assumed) == (PROBABLE, "multi_label", None)


@pytest.mark.parametrize(
    "end",
    [
        lambda x: ops.exp(ops.log_softmax(layers.Dense(3)(x))),
        lambda x: (lambda e: e / ops.sum(e, -1, keepdims=True))(ops.exp(layers.Dense(3)(x))),
        lambda x: ops.max(ops.softmax(chart(x)), axis=(1, 2)),
        layers.Dense(3, activation=lambda x: ops.softmax(x)),
    ],
)
def test_values_that_add_up_to_1_exclude_each_other(end):
    inputs = keras.Input((8,))
    outputs = model_outputs(keras.Model(inputs, end(inputs)))
    assert (outputs.kind, outputs.task, outputs.assumed) == (PROBABLE, "single_label", None)


@pytest.mark.parametrize(
    ("end", "kind", "why"),
    [
        (Own(name="mine"), LOGIT, "ends in layer 'mine' of class Own"),
        (lambda x: 3 * sigmoid(x), LOGIT, "changes probabilities"),
        (lambda x: layers.BatchNormalization()(sigmoid(x)), LOGIT, "changes probabilities"),
        (layers.Dense(3, activation="tanh"), LOGIT, "activation 'tanh'"),
        (layers.Lambda(lambda x: x * 2), LOGIT, "class Lambda"),
        (lambda x: ops.log(sigmoid(x)), LOGIT, "changes probabilities"),
        (
            lambda x: layers.Average()([sigmoid(x), layers.Dense(3)(x)]),
            LOGIT,
            "mixes logits and probabilities",
        ),
    ],
)
def test_what_cannot_be_known_is_said(end, kind, why):
    inputs = keras.Input((8,))
    outputs = model_outputs(keras.Model(inputs, end(inputs)))
    assert outputs.kind == kind
    assert why in outputs.assumed
    assert f"taken to be {kind}" in outputs.assumed


def test_log_odds_of_certain_scores_are_finite():
    inputs = keras.Input((8,))
    outputs = model_outputs(keras.Model(inputs, sigmoid(inputs)))
    scores = np.array([0.0, 0.04, 0.5, 1.0], np.float32)
    logits = np.asarray(outputs.logits(scores))
    np.testing.assert_allclose(logits[1:3], [np.log(0.04 / 0.96), 0], atol=1e-6)
    assert -17 < logits[0] < -16 < 16 < logits[3] < 17


def test_many_branches_without_activations_are_read_once():
    x = inputs = keras.Input((8,))
    for _ in range(60):
        x = layers.Add()([layers.ReLU()(x), layers.BatchNormalization()(x)])
    assert model_outputs(keras.Model(inputs, x)).kind == LOGIT
