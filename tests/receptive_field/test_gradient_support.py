"""The receptive field of built models, measured by the gradient of one position."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from rfkeras.receptive_field import RHO_MAX, plan_trunk


def gradient_support(model, frames, bands):
    """First and last + 1 pixel with gradient, per axis, of the map's middle position."""
    body = keras.Model(model.input, model.get_layer("classifier_conv").input)
    # Positive weights and input: no ReLU cuts a path.
    for variable in body.variables:
        if variable.name == "kernel":
            variable.assign(np.abs(variable.numpy()) + 0.01)
    x = tf.constant(np.random.default_rng(0).uniform(1, 2, (1, frames, bands, 1)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        maps = body(x, training=False)
        middle = (maps.shape[1] // 2, maps.shape[2] // 2)
        value = tf.reduce_sum(maps[0, middle[0], middle[1]])
    gradient = np.abs(tape.gradient(value, x).numpy())[0, :, :, 0]
    spans = []
    for axis in (0, 1):
        hit = np.flatnonzero(gradient.max(axis=1 - axis))
        spans.append((hit[0], hit[-1] + 1))
    return middle, spans


class MeanPooling(keras.layers.AveragePooling2D):
    """In place of max-pooling, which passes the gradient of its largest input only.

    The window is the same, and every pixel of it gets a gradient.
    """


@pytest.fixture
def averaging_pools(monkeypatch):
    monkeypatch.setattr(keras.layers, "MaxPooling2D", MeanPooling)


@pytest.mark.usefixtures("averaging_pools")
@pytest.mark.parametrize("rho", range(RHO_MAX + 1))
def test_measured_field_equals_formula_for_every_rho_on_both_axes(rho):
    pair = (rho, RHO_MAX - rho)
    plan = plan_trunk(pair)
    frames, bands = (field.size + 64 for field in (plan.time, plan.frequency))
    model = zoo.create_model("resnet_rf", 2, rho=pair, width=1, frontend=None)
    for block in plan.blocks:  # conv2 starts at zero: nothing would pass the block
        kernel = model.get_layer(block.name).residuals[0].conv2.kernel
        kernel.assign_add(np.ones_like(kernel))
    middle, spans = gradient_support(model, frames, bands)
    for axis, field in enumerate((plan.time, plan.frequency)):
        assert spans[axis] == field.window(middle[axis])
