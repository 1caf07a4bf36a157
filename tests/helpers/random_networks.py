"""Random networks: descriptions drawn by hypothesis, and their Keras models.

A network is a list of parts. Each part is a tuple that starts with its name, so that failing
examples are readable. Sizes are (time, frequency). When the model is built, parts that need
a larger map are omitted.
"""

import keras
from hypothesis import HealthCheck
from hypothesis import strategies as st

SHAPE = (59, 48)  # one length is prime, the other divisible by most strides
BORDER = 12  # distance in pixels from which padding has no effect
QUIET = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
CHANNELS = 2
SMALLEST = 12  # minimum length of a map that further parts may shorten

sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))
strides = st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 2), (3, 3)])
paddings = st.sampled_from(["same", "valid"])
edges = st.tuples(st.integers(0, 3), st.integers(0, 3))
ones = st.just((1, 1))
dilations = st.tuples(st.integers(1, 3), st.integers(1, 3))

keeping = st.one_of(  # parts that keep the map's size and rate
    st.tuples(st.just("conv"), sizes, ones, dilations, st.just("same")),
    st.tuples(st.just("depthwise"), sizes, ones, ones, st.just("same")),
    st.tuples(st.just("separable"), sizes, ones, dilations, st.just("same")),
    st.tuples(st.just("transposed"), sizes, ones, st.just("same"), st.none()),
    st.tuples(st.just("pool"), st.booleans(), sizes, ones, st.just("same")),
    st.tuples(st.just("across"), sizes),
    st.tuples(st.just("block"), st.tuples(*[st.sampled_from([1, 3])] * 4)),
)
shortening = st.one_of(
    st.tuples(st.just("conv"), sizes, ones, dilations, st.just("valid")),
    st.tuples(st.just("conv"), sizes, strides, ones, paddings),
    st.tuples(st.just("depthwise"), sizes, st.sampled_from([(1, 1), (2, 2)]), ones, paddings),
    st.tuples(st.just("separable"), sizes, st.just((2, 2)), ones, paddings),
    st.tuples(st.just("pool"), st.booleans(), sizes, strides, paddings),
    st.tuples(st.just("crop"), edges, edges),
    st.tuples(st.just("slice"), edges),
)
lengthening = st.one_of(
    st.tuples(st.just("up"), sizes.map(lambda s: (min(s[0], 3), min(s[1], 3))),
              st.sampled_from(["nearest", "bilinear"])),
    st.tuples(st.just("transposed"), sizes, st.sampled_from([(2, 2), (3, 2), (1, 3)]), paddings,
              st.sampled_from([None, 0, 1])),
    st.tuples(st.just("pad"), edges, edges),
)  # fmt: skip
merges = st.sampled_from(
    ["Add", "Average", "Maximum", "Multiply", "Concatenate", "ops.add", "ops.concatenate"]
)


def _composed(parts):
    several = st.lists(parts, min_size=1, max_size=2)
    return st.one_of(
        st.tuples(st.just("branches"), merges, several, st.lists(parts, max_size=2)),
        st.tuples(st.just("nested"), several, st.booleans()),
        st.tuples(st.just("twice"), sizes),
        # Down and up again: the map has its original rate, but may be shorter.
        st.tuples(st.just("hourglass"), st.sampled_from([2, 3]), parts, st.booleans()),
    )


kept = st.recursive(keeping, _composed, max_leaves=4)
networks = st.lists(
    st.one_of(kept, shortening, shortening, lengthening), min_size=3, max_size=6
)


def build(network, shape):
    """Build the Keras model of a description, for maps of shape (time, frequency)."""
    inputs = keras.Input((*shape, 1))
    return _model(network, inputs)


def _model(network, inputs):
    # A model needs a layer even if all parts are omitted.
    return keras.Model(inputs, parts_of(network, keras.layers.Identity()(inputs)))


def parts_of(network, x):
    for name, *options in network:
        x = PARTS[name](x, *options)
    return x


def _fits(x, kernel=(1, 1), dilation=(1, 1), stride=(1, 1)):
    spans = [(k - 1) * d + s for k, d, s in zip(kernel, dilation, stride, strict=True)]
    return all(n - span >= SMALLEST for n, span in zip(x.shape[1:3], spans, strict=True))


def conv(x, kernel, stride, dilation, padding):
    if (padding == "valid" or max(stride) > 1) and not _fits(x, kernel, dilation, stride):
        return x
    options = {"strides": stride, "dilation_rate": dilation, "padding": padding}
    return keras.layers.Conv2D(CHANNELS, kernel, **options)(x)


def depthwise(x, kernel, stride, dilation, padding):
    if (padding == "valid" or max(stride) > 1) and not _fits(x, kernel, dilation, stride):
        return x
    return keras.layers.DepthwiseConv2D(kernel, strides=stride, padding=padding)(x)


def separable(x, kernel, stride, dilation, padding):
    if (padding == "valid" or max(stride) > 1) and not _fits(x, kernel, dilation, stride):
        return x
    return keras.layers.SeparableConv2D(
        CHANNELS, kernel, strides=stride, dilation_rate=dilation, padding=padding
    )(x)


def transposed(x, kernel, stride, padding, output_padding):
    if max(n * s for n, s in zip(x.shape[1:3], stride, strict=True)) > 150:
        return x
    # TensorFlow rejects lengths that no convolution with this stride maps to the input's.
    rest = [k % 2 if padding == "same" else 1 for k in kernel]
    if output_padding is not None and not all(
        1 <= r + output_padding <= s for r, s in zip(rest, stride, strict=True)
    ):
        output_padding = None
    return keras.layers.Conv2DTranspose(
        CHANNELS, kernel, strides=stride, padding=padding, output_padding=output_padding
    )(x)


def pool(x, maximum, size, stride, padding):
    if (padding == "valid" or max(stride) > 1) and not _fits(x, size, stride=stride):
        return x
    kind = keras.layers.MaxPooling2D if maximum else keras.layers.AveragePooling2D
    return kind(size, strides=stride, padding=padding)(x)


def crop(x, time, frequency):
    return keras.layers.Cropping2D((time, frequency))(x) if _fits(x, (8, 8)) else x


def part_of_it(x, start):
    return x[:, start[0] :: 2, start[1] :] if _fits(x, (1, 1), stride=(14, 4)) else x


def pad(x, time, frequency):
    return keras.layers.ZeroPadding2D((time, frequency))(x)


def up(x, size, interpolation):
    if max(n * s for n, s in zip(x.shape[1:3], size, strict=True)) > 150:
        return x
    return keras.layers.UpSampling2D(size, interpolation=interpolation)(x)


def across(x, kernel):
    """Apply a convolution with the axes exchanged, and exchange them back."""
    x = keras.layers.Permute((2, 1, 3))(x)
    x = keras.layers.Conv2D(CHANNELS, kernel, padding="same")(x)
    return keras.ops.transpose(x, (0, 2, 1, 3))


def block(x, kernels):
    from rfkeras.layers import ResidualBlock

    pairs = (kernels[:2], kernels[2:])
    return ResidualBlock(CHANNELS, pairs, initialization="he")(x)


def branches(x, merge, one, other):
    return merged(merge, [parts_of(one, x), parts_of(other, x)])


def merged(merge, maps):
    """Combine the maps, cropped to the shortest."""
    lengths = [min(x.shape[axis] for x in maps) for axis in (1, 2)]
    maps = [
        keras.layers.Cropping2D([(0, x.shape[axis + 1] - lengths[axis]) for axis in (0, 1)])(x)
        for x in maps
    ]
    if merge == "ops.add":
        return keras.ops.add(*maps) if len({x.shape[-1] for x in maps}) == 1 else maps[0] * 1.0
    if merge == "ops.concatenate":
        return keras.ops.concatenate(maps, axis=-1)
    if merge == "Concatenate":
        return keras.layers.Concatenate()(maps)
    wide = [keras.layers.Conv2D(CHANNELS, 1)(x) if x.shape[-1] == 1 else x for x in maps]
    same = len({x.shape[-1] for x in wide}) == 1
    if not same:
        wide = [keras.layers.Conv2D(CHANNELS, 1)(x) for x in wide]
    return getattr(keras.layers, merge)()(wide)


def nested(x, network, sequential):
    model = _model(network, keras.Input(x.shape[1:]))
    return keras.Sequential([model])(x) if sequential else model(x)


def twice(x, kernel):
    """Apply the same convolution twice in a row."""
    layer = keras.layers.Conv2D(x.shape[-1], kernel, padding="same")
    return layer(layer(x))


def hourglass(x, factor, part, skip):
    if not _fits(x, stride=(factor, factor)) or min(x.shape[1:3]) < 2 * SMALLEST:
        return x
    y = keras.layers.AveragePooling2D(factor, padding="same")(x)
    y = keras.layers.UpSampling2D(factor)(parts_of([part], y))
    return merged("Concatenate", [x, y]) if skip else y


PARTS = {
    "conv": conv, "depthwise": depthwise, "separable": separable, "transposed": transposed,
    "pool": pool, "crop": crop, "slice": part_of_it, "pad": pad, "up": up, "across": across,
    "block": block, "branches": branches, "nested": nested, "twice": twice,
    "hourglass": hourglass,
}  # fmt: skip


def takes_maximum(network):
    """Return whether the network has a maximum, which passes only one input's gradient."""
    description = str(network)
    return "('pool', True" in description or "'Maximum'" in description
