"""The receptive field of random networks is what their outputs depend on.

Measured twice on the Keras models as they are, which share nothing with the rules: by
raising every pixel, for all positions; and by the gradient of one position.
"""

import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, given, settings

import rfkeras
from tests.receptive_field.random_networks import (
    build,
    build_sequence,
    networks,
    sequences,
    takes_maximum,
)
from tests.receptive_field.support import check_field, seen_pixels, seen_span

SHAPE = (59, 48)  # a length that no stride divides, and one that most do
STEPS = 61
BORDER = 12  # pixels
QUIET = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@settings(max_examples=230, **QUIET)
@given(networks)
def test_random_networks(network):
    model = build(network, SHAPE)
    rf = rfkeras.receptive_field(model)
    fields = (rf.time, rf.frequency)
    for axis, field in enumerate(fields):
        seen = seen_pixels(model, SHAPE, axis)
        assert rf.positions[axis] == len(seen)
        check_field(field, seen, BORDER)
    if "transposed" not in str(network):  # oneDNN aborts in the gradient of some of these
        check_gradient(model, fields, exact=not takes_maximum(network))


def check_gradient(model, fields, exact):
    """The support of the gradient of the middle position; a maximum passes only a part."""
    x = tf.constant(np.random.default_rng(2).uniform(1, 2, (1, *SHAPE, 1)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        maps = model(x, training=False)
        middle = (maps.shape[1] // 2, maps.shape[2] // 2)
        value = tf.reduce_sum(maps[0, middle[0], middle[1]])
    gradient = np.abs(tape.gradient(value, x).numpy())[0, :, :, 0]
    windows = [field.window(position) for field, position in zip(fields, middle, strict=True)]
    if any(first == stop for first, stop in windows):  # sees nothing along one axis
        assert not gradient.any()
        return
    for axis, (first, stop) in enumerate(windows):
        span = seen_span(gradient.max(axis=1 - axis))
        inside = [
            b >= BORDER and e <= n - BORDER for (b, e), n in zip(windows, SHAPE, strict=True)
        ]
        assert span is None or (first <= span[0] and span[1] <= stop)
        if exact and all(inside):
            assert span == (first, stop)


@settings(max_examples=120, **QUIET)
@given(sequences)
def test_random_sequence_networks(network):
    model = build_sequence(network, STEPS)
    rf = rfkeras.receptive_field(model)
    assert rf.axes == ("time",)
    assert rf.frequency is None
    seen = seen_pixels(model, (STEPS,), 0)
    assert rf.positions == (len(seen), None)
    check_field(rf.time, seen, BORDER)
