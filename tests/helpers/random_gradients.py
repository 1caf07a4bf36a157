"""Script: check that gradients of random networks are inside, and fill, the receptive field.

`python -m tests.helpers.random_gradients N` checks N networks and prints how many of their
gradients were compared with a whole window on both axes.

It runs in a process without oneDNN, which corrupts the heap in TensorFlow 2.16 for the
gradients of some convolutions, such as 1x1 with a stride of (2, 1).
"""

import sys

import numpy as np
import tensorflow as tf
from hypothesis import given, settings

import rfkeras
from tests.helpers.random_networks import BORDER, QUIET, SHAPE, build, networks, takes_maximum
from tests.helpers.receptive_field import make_positive, seen_span

whole = 0  # number of gradients compared with a whole window on both axes


@given(networks)
def check(network):
    global whole
    model = build(network, SHAPE)
    make_positive(model)
    rf = rfkeras.receptive_field(model)
    gradient, middle = gradient_of_the_middle(model)
    windows = [f.window(p) for f, p in zip((rf.time, rf.frequency), middle, strict=True)]
    if any(first == stop for first, stop in windows):
        assert not gradient.any()
        return
    inside = all(
        first >= BORDER and stop <= length - BORDER
        for (first, stop), length in zip(windows, SHAPE, strict=True)
    )
    for axis, (first, stop) in enumerate(windows):
        span = seen_span(gradient.max(axis=1 - axis))
        assert span is None or (first <= span[0] and span[1] <= stop), (axis, span)
        if inside and not takes_maximum(network):
            assert span == (first, stop), (axis, span)
    whole += inside and not takes_maximum(network)


def gradient_of_the_middle(model):
    """Return (absolute gradient (time, frequency), position) of the middle position."""
    x = tf.constant(np.random.default_rng(2).uniform(1, 2, (1, *SHAPE, 1)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        maps = model(x, training=False)
        middle = (maps.shape[1] // 2, maps.shape[2] // 2)
        value = tf.reduce_sum(maps[0, middle[0], middle[1]])
    return np.abs(tape.gradient(value, x).numpy())[0, :, :, 0], middle


if __name__ == "__main__":
    settings(max_examples=int(sys.argv[1]), **QUIET)(check)()
    print(whole)
