"""The receptive field of a built model, measured by the gradient of one position."""

import keras
import numpy as np
import tensorflow as tf

import rfkeras

RAISED = 1e6  # pixels are 1 to 2


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


def make_positive(model):
    """Nearly even positive kernels: every path counts, and none much less than others."""
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        value = rng.uniform(0.8, 1.2, variable.shape)
        if variable.ndim > 1:
            variable.assign(value / np.prod(variable.shape[:-1]))


def seen_pixels(model, shape, axis):
    """Which pixels along one axis each position of a model's output depends on.

    Measured on the model as it is: each pixel's row of the input is raised by itself, so
    far that it passes every maximum, and what changes at the output has seen it.

    Args:
        model: From maps (batch, time, frequency, 1) or (batch, time, 1) to maps; monotone.
        shape: (time, frequency) of the input, or (time,).
        axis: 0 for time, 1 for frequency.

    Returns:
        (positions, pixels) of bool.
    """
    make_positive(model)
    rng = np.random.default_rng(1)
    x = np.repeat(rng.uniform(1, 2, (1, *shape, 1)), shape[axis] + 1, axis=0)
    for pixel in range(shape[axis]):
        x[(pixel + 1, slice(None), pixel) if axis else (pixel + 1, pixel)] += RAISED
    outputs = np.asarray(model(tf.constant(x, tf.float32), training=False))
    moved = np.abs(outputs[1:] - outputs[:1]) > 1e-2 * np.abs(outputs[:1])
    others = tuple(dim for dim in range(1, moved.ndim) if dim != axis + 1)
    return moved.any(axis=others).T


def seen_span(seen):
    """First pixel of one position's and the one after the last; None if there is none."""
    hit = np.flatnonzero(seen)
    return (int(hit[0]), int(hit[-1]) + 1) if hit.size else None


def check_field(field, seen, border=0):
    """Every position sees pixels of its window alone; away from the borders all of them.

    Args:
        field: What was computed, along one axis.
        seen: (positions, pixels) that were measured.
        border: Near the ends of a map padding takes the place of positions that would have
            been seen: from how many pixels on a window has to be exact.

    Returns:
        How many positions lie away from the borders.
    """
    positions, pixels = seen.shape
    inside = 0
    for position in range(positions):
        first, stop = field.window(position)
        span = seen_span(seen[position])
        if span is not None:
            assert first <= span[0], (position, span, (first, stop))
            assert span[1] <= stop, (position, span, (first, stop))
        if border <= first and stop <= pixels - border:
            assert span == ((first, stop) if first < stop else None), position
            inside += 1
    return inside


def check_model(model, shape, border=0):
    """The receptive field of a model of maps is what its outputs are seen to depend on.

    Returns:
        The receptive field.
    """
    rf = rfkeras.receptive_field(model, input_shape=(*shape, 1))
    for axis, field in enumerate((rf.time, rf.frequency)):
        seen = seen_pixels(model, shape, axis)
        assert rf.positions[axis] == len(seen)
        assert check_field(field, seen, border), "no position lies away from the borders"
    return rf
