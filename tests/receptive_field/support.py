"""The receptive field of a built model, measured by the gradient of one position."""

import keras
import numpy as np
import tensorflow as tf


class MeanPooling(keras.layers.AveragePooling2D):
    """In place of max-pooling, which passes the gradient of its largest input only.

    The window is the same, and every pixel of it gets a gradient.
    """


def open_all_paths(model):
    """Positive kernels, so that with positive input no ReLU and no zero cuts a path.

    Each output's weights add up to 1, so that no gate of a recurrence saturates.
    """
    for variable in model.variables:
        if variable.name == "kernel":
            value = np.abs(variable.numpy()) + 0.01
            variable.assign(value / value.sum(axis=tuple(range(value.ndim - 1))))


def gradient_support(model, frames, bands, output="classifier_conv"):
    """Middle position of the map before a layer, and what it sees.

    Returns:
        (position, spans): for time and frequency, the position, and the first pixel with a
        gradient and the one after the last.
    """
    body = keras.Model(model.input, model.get_layer(output).input)
    open_all_paths(body)
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
