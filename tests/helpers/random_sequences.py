"""Random networks over sequences (batch, time, features): description and Keras model."""

import keras
from hypothesis import strategies as st

from tests.helpers.random_networks import CHANNELS, SMALLEST, edges, paddings, sizes

STEPS = 61  # not divisible by any stride
widths = st.integers(1, 4)
steps = st.sampled_from([1, 1, 2, 3])
sequences = st.lists(
    st.one_of(
        st.tuples(st.just("Conv1D"), widths, steps, paddings | st.just("causal")),
        st.tuples(st.just("dilated"), widths, widths, st.sampled_from(["same", "causal"])),
        st.tuples(st.just("DepthwiseConv1D"), widths, steps, paddings),
        st.tuples(st.just("SeparableConv1D"), widths, steps, paddings),
        st.tuples(st.just("Conv1DTranspose"), widths, steps, paddings),
        st.tuples(st.just("MaxPooling1D"), widths, steps, paddings),
        st.tuples(st.just("AveragePooling1D"), widths, steps, paddings),
        st.tuples(st.just("UpSampling1D"), st.integers(1, 3)),
        st.tuples(st.just("ZeroPadding1D"), edges),
        st.tuples(st.just("Cropping1D"), edges),
        st.tuples(st.just("repeat"), st.integers(1, 3)),
        st.tuples(st.just("ops.pad"), edges),
        st.tuples(st.just("stacked"), st.sampled_from([2, 3])),
        st.tuples(st.just("shuffled")),
        st.tuples(st.just("picture"), sizes),
    ),
    min_size=3,
    max_size=6,
)  # fmt: skip


def build_sequence(network, length):
    """Build the Keras model of a description, for sequences (batch, length, 1)."""
    inputs = keras.Input((length, 1))
    x = keras.layers.Conv1D(CHANNELS, 1)(inputs)
    for name, *options in network:
        steps = x.shape[1]
        if steps > 150 or (steps < 2 * SMALLEST and name not in ("Conv1D", "dilated")):
            continue
        x = SEQUENCE_PARTS.get(name, _layer_1d(name))(x, *options)
    return keras.Model(inputs, x)


def _layer_1d(name):
    def part(x, *options):
        layer = getattr(keras.layers, name, None)
        if len(options) == 1:
            return layer(options[0])(x)
        width, stride, padding = options
        if padding == "valid" and x.shape[1] < SMALLEST:
            padding = "same"
        filters = () if "Depthwise" in name or "Pooling" in name else (CHANNELS,)
        return layer(*filters, width, strides=stride, padding=padding)(x)

    return part


def _dilated(x, width, dilation, padding):
    return keras.layers.Conv1D(CHANNELS, width, dilation_rate=dilation, padding=padding)(x)


def _stacked(x, frames):
    """Join neighbouring steps to one step with more features."""
    x = x[:, : x.shape[1] // frames * frames]
    return keras.layers.Reshape((x.shape[1] // frames, frames * x.shape[2]))(x)


def _shuffled(x):
    """Spread features over steps, the reverse of stacking."""
    x = keras.layers.Conv1D(2 * CHANNELS, 1)(x)
    return keras.ops.reshape(x, (-1, 2 * x.shape[1], CHANNELS))


def _picture(x, kernel):
    """Convolve with the features as an axis of a map."""
    features = x.shape[2]
    x = keras.layers.Conv2D(1, kernel, padding="same")(keras.ops.expand_dims(x, -1))
    return keras.layers.Dense(CHANNELS)(keras.layers.Reshape((-1, features))(x))


SEQUENCE_PARTS = {
    "dilated": _dilated, "stacked": _stacked, "shuffled": _shuffled, "picture": _picture,
    "repeat": lambda x, times: keras.ops.repeat(x, times, axis=1),
    "ops.pad": lambda x, sides: keras.ops.pad(x, ((0, 0), sides, (0, 0))),
}  # fmt: skip
