"""Measure the receptive field of a built model by gradients or by changing pixels."""

import keras
import numpy as np
import tensorflow as tf

import rfkeras

RAISED = 1e6  # pixels are 1 to 2


class MeanPooling(keras.layers.AveragePooling2D):
    """Replaces max-pooling, which passes the gradient of only its largest input.

    The window is the same, and every pixel in it gets a gradient.
    """


def open_all_paths(model):
    """Make kernels positive, so that with positive input no ReLU or zero blocks a path.

    The weights of each output add up to 1, so that no gate of a recurrence saturates.
    """
    for variable in model.variables:
        if variable.name == "kernel":
            value = np.abs(variable.numpy()) + 0.01
            variable.assign(value / value.sum(axis=tuple(range(value.ndim - 1))))


def gradient_support(model, frames, bands, output="classifier_conv"):
    """Measure what the middle position of the map before a layer sees.

    Returns:
        (position, spans): for time and frequency, the position, and the first pixel with a
        gradient and the pixel after the last.
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
    """Set nearly uniform positive kernels, so that every path has a similar weight."""
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        value = rng.uniform(0.8, 1.2, variable.shape)
        if variable.ndim > 1:
            variable.assign(value / np.prod(variable.shape[:-1]))


def seen_pixels(model, shape, axis):
    """Measure which pixels along one axis each position of a model's output depends on.

    Each row of the input is raised separately, so far that it exceeds every maximum. The
    output positions that change have seen it.

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
    """Return the first pixel seen and the pixel after the last; None if nothing is seen."""
    hit = np.flatnonzero(seen)
    return (int(hit[0]), int(hit[-1]) + 1) if hit.size else None


def check_field(field, seen, border=0):
    """Check that positions see only their windows, and all of them inside the border.

    Args:
        field: Computed field along one axis.
        seen: Measured (positions, pixels).
        border: Distance in pixels from the ends, from which windows must be exact. Nearer
            to the ends, padding replaces some positions.

    Returns:
        Number of positions inside the border.
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
    """Check that the receptive field of a model equals what its outputs depend on.

    Returns:
        The receptive field.
    """
    rf = rfkeras.receptive_field(model, input_shape=(*shape, 1))
    for axis, field in enumerate((rf.time, rf.frequency)):
        seen = seen_pixels(model, shape, axis)
        assert rf.positions[axis] == len(seen)
        assert check_field(field, seen, border), "no position is inside the border"
    return rf
