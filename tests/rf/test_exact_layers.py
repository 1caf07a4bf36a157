"""Single layers: the receptive field equals what the output depends on."""

from fractions import Fraction

import keras
import numpy as np
import pytest
from keras import layers, ops

import rfkeras
from rfkeras.errors import ConfigError
from rfkeras.rf import AxisField
from tests.helpers.receptive_field import check_model, seen_pixels

SHAPE = (36, 30)


def model_of(part, shape=(*SHAPE, 1), before=None):
    inputs = keras.Input(shape)
    x = inputs if before is None else before(inputs)
    return keras.Model(inputs, part(x))


def squeeze_and_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    return layers.Multiply(name="excite")([x, layers.Dense(1, activation="sigmoid")(gate)])


WINDOWS = {
    "cubic": (lambda x: layers.UpSampling2D((3, 2), interpolation="bicubic")(x), 4, 4),
    "grouped": (lambda x: layers.Conv2D(4, (3, 2), groups=2)(layers.Conv2D(4, 1)(x)), 3, 2),
    "max pool op": (lambda x: ops.max_pool(x, (3, 2), strides=1, padding="same"), 3, 2),
    "average pool op": (lambda x: ops.average_pool(x, (2, 4)), 2, 4),
    "adaptive": (lambda x: layers.AdaptiveAveragePooling2D((12, 15))(x), 3, 2),
    "difference": (lambda x: 2.0 * x[:, 1:] + x[:, :-1], 2, 1),
    "every other": (lambda x: layers.Conv2D(1, 2)(x[:, ::3, 2:-1]), 4, 2),
    "stack": (lambda x: ops.max(ops.stack([x, layers.Conv2D(1, 3, padding="same")(x)], 2), 2),
              3, 3),
    "split": (lambda x: ops.add(*ops.split(layers.Conv2D(4, (1, 3))(x), 2, axis=-1)), 1, 3),
    "matmul": (lambda x: ops.matmul(layers.Conv2D(3, 2)(x), np.ones((3, 5), "float32")), 2, 2),
    "swap": (lambda x: layers.Conv2D(1, (3, 1))(ops.swapaxes(x, 1, 2)), 1, 3),
    "move": (lambda x: layers.Conv2D(1, (3, 1))(ops.moveaxis(x, 1, 2)), 1, 3),
    "spectral": (lambda x: layers.SpectralNormalization(layers.Conv2D(1, (3, 1)))(x), 3, 1),
    "each step": (
        lambda x: layers.TimeDistributed(layers.Conv1D(2, 5, padding="same"))(x), 1, 5,
    ),
    "without channels": (
        lambda x: layers.Conv2D(1, 3)(layers.Reshape((*SHAPE, 1))(ops.squeeze(x, -1))), 3, 3,
    ),
    "gaps": (lambda x: layers.Conv2DTranspose(1, 1, strides=(3, 1))(x), 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name):
    if name == "adaptive" and not hasattr(layers, "AdaptiveAveragePooling2D"):
        pytest.skip("Keras before 3.13 has no such layer")
    part, time, frequency = WINDOWS[name]
    model = model_of(part)
    rf = rfkeras.receptive_field(model)
    assert (rf.time.size, rf.frequency.size) == (time, frequency)
    if name == "cubic":  # some of its weights are negative
        return
    if name in ("swap", "move"):  # the output has its axes exchanged
        seen = seen_pixels(model, SHAPE, 0)
        assert seen.shape[0] == rf.positions[1]
    else:
        check_model(model, SHAPE)


UNLIMITED = {  # (along time, along frequency)
    "squeeze and excite": (squeeze_and_excite, True, True),
    "recurrence": (
        lambda x: layers.TimeDistributed(layers.GRU(2, return_sequences=True))(x), False, True,
    ),
    "layer norm": (lambda x: layers.LayerNormalization(axis=2)(x), False, True),
    "group norm": (lambda x: layers.GroupNormalization(1)(x), True, True),
    "softmax": (lambda x: layers.Softmax(axis=1)(x), True, False),
    "convolutional recurrence": (
        lambda x: layers.ConvLSTM1D(2, 3, padding="same", return_sequences=True)(x), True, True,
    ),
    "attention": (
        lambda x: layers.MultiHeadAttention(1, 2, attention_axes=(1,))(x, x), True, False,
    ),
    "read as features": (lambda x: layers.Dense(2)(layers.Reshape(SHAPE)(x)), False, True),
    "cumulative": (lambda x: ops.cumsum(x, axis=1), True, False),
    "joined along time": (lambda x: layers.Concatenate(axis=1)([x, x]), True, False),
    "batch norm in training": (
        lambda x: layers.BatchNormalization()(x, training=True), True, True,
    ),
    "flipped": (lambda x: x[:, ::-1], True, False),
}  # fmt: skip


@pytest.mark.parametrize("name", UNLIMITED)
def test_unlimited(name):
    part, time, frequency = UNLIMITED[name]
    rf = rfkeras.receptive_field(model_of(part, before=layers.Conv2D(1, 3, padding="same")))
    assert [rf.time is None, rf.frequency is None] == [time, frequency]
    assert sum("is unlimited" in note for note in rf.notes) == time + frequency
    assert rf.pooled_by is None


def test_squeeze_and_excite_names_the_layers():
    rf = rfkeras.receptive_field(model_of(squeeze_and_excite))
    assert rf.notes[0] == (
        "time is unlimited: 'excite': all positions receive what 'squeeze' pooled over them"
    )
    seen = seen_pixels(model_of(squeeze_and_excite), SHAPE, 0)
    assert seen.all()


def head(pool):
    return lambda x: layers.Dense(3)(layers.Dense(4, activation="relu")(pool(x)))


@pytest.mark.parametrize(
    ("pool", "by"),
    [
        (layers.GlobalAveragePooling2D(name="gap"), "gap"),
        (layers.GlobalMaxPooling2D(name="gmp", keepdims=True), "gmp"),
        (lambda x: ops.max(ops.mean(x, axis=2), axis=1), "mean"),
        (lambda x: ops.max(x, axis=(1, 2)) + ops.mean(x, axis=(1, 2)), "max"),
    ],
)
def test_pooled_model_has_the_field_of_its_last_map(pool, by):
    inputs = keras.Input((None, 30, 1))
    x = layers.Conv2D(2, 3, strides=(2, 1))(inputs)
    rf = rfkeras.receptive_field(keras.Model(inputs, head(pool)(x)))
    assert (rf.time, rf.frequency) == (AxisField(3, 2), AxisField(3))
    assert rf.pooled_by.partition("_")[0] == by
    assert rf.positions == (None, 28)


def test_map_pooled_over_one_axis_and_convolved_is_unlimited_along_it():
    inputs = keras.Input((50, 30, 1))
    x = ops.mean(layers.Conv2D(2, 3)(inputs), axis=2)
    x = layers.GlobalMaxPooling1D(name="end")(layers.Conv1D(2, 5)(x))
    rf = rfkeras.receptive_field(keras.Model(inputs, x))
    assert (rf.time, rf.frequency, rf.pooled_by) == (AxisField(7), None, "end")


def test_two_pooled_maps_of_different_rates():
    inputs = keras.Input((48, 48, 1))
    fine = layers.Conv2D(2, 3)(inputs)
    coarse = layers.Conv2D(2, 5, strides=3)(fine)
    pooled = [layers.GlobalAveragePooling2D()(x) for x in (fine, coarse)]
    rf = rfkeras.receptive_field(keras.Model(inputs, layers.Concatenate()(pooled)))
    assert rf.time == AxisField(7, 3)


def test_selected_position():
    model = model_of(lambda x: layers.Conv2D(1, 5)(x)[:, 4:5, -1])
    rf = rfkeras.receptive_field(model)
    assert rf.time == AxisField(5, 1, 4)
    assert rf.frequency == AxisField(5, 0, 25)
    model = model_of(layers.Flatten(), before=layers.Conv2D(1, SHAPE))
    rf = rfkeras.receptive_field(model)
    assert (rf.time, rf.frequency) == (AxisField(36, 0), AxisField(30, 0))


def test_positions_finer_than_pixels():
    rf = rfkeras.receptive_field(model_of(lambda x: layers.UpSampling2D((2, 3))(x)))
    assert rf.time == AxisField(1, Fraction(1, 2), 0, ((0, 1), (0, 1)))
    assert [rf.frequency.window(p) for p in (-1, 0, 2, 3, 7)] == [
        (-1, 0), (0, 1), (0, 1), (1, 2), (2, 3),
    ]  # fmt: skip
    assert rf.to_dict()["time"]["windows"] == [[0, 1], [0, 1]]
    again = rfkeras.receptive_field(
        model_of(layers.AveragePooling2D((2, 3)), before=layers.UpSampling2D((2, 3)))
    )
    assert again.time == again.frequency == AxisField()


def test_layers_without_effect_at_inference():
    inputs = keras.Input((30, 20, 1))
    labels, weights = keras.Input((3,)), keras.Input((3,))
    x = rfkeras.layers.SpecAugment()(rfkeras.layers.RandomTimeRoll()(inputs))
    x = rfkeras.layers.ReplicaDropout(0.5)(layers.GaussianNoise(1.0)(x))
    x, *_ = rfkeras.layers.Mixup(0.3, name="mixup")([x, labels, weights])
    model = keras.Model([inputs, labels, weights], layers.Dropout(0.5)(x))
    rf = rfkeras.receptive_field(model, input_name=inputs.name)
    assert (rf.time, rf.frequency) == (AxisField(), AxisField())


def test_features_over_time():
    """Read a spectrogram as a sequence of features, which has only a time axis."""
    inputs = keras.Input((40, 64))
    x = layers.Conv1D(8, 5, strides=2, padding="causal", name="conv")(inputs)
    rf = rfkeras.receptive_field(keras.Model(inputs, layers.GlobalMaxPooling1D()(x)))
    assert rf.axes == ("time",)
    assert (rf.time, rf.frequency) == (AxisField(5, 2, -4), None)
    assert " x " not in rf.table().splitlines()[2]
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(inputs)
    assert rfkeras.receptive_field(keras.Model(inputs, x)).time is None
    x = layers.DepthwiseConv1D(3, depth_multiplier=2)(inputs)  # each band separately
    assert rfkeras.receptive_field(keras.Model(inputs, x)).axes == ("time",)


def test_channels_first():
    """Check that the same network with channels_first has the same field."""

    def network(x, layout):
        x = layers.ZeroPadding2D(((1, 0), (2, 3)), data_format=layout)(x)
        x = layers.Conv2D(3, (5, 3), strides=2, padding="same", data_format=layout)(x)
        x = layers.SeparableConv2D(4, (1, 3), data_format=layout)(x)
        x = layers.MaxPooling2D((2, 3), padding="same", data_format=layout)(x)
        x = layers.UpSampling2D((3, 2), data_format=layout)(x)
        x = layers.Conv2DTranspose(2, 3, strides=2, data_format=layout)(x)
        return layers.GlobalAveragePooling2D(data_format=layout, name="gap")(x)

    fields = []
    for layout, shape in (("channels_last", (40, 30, 1)), ("channels_first", (1, 40, 30))):
        inputs = keras.Input(shape)
        rf = rfkeras.receptive_field(keras.Model(inputs, network(inputs, layout)))
        fields.append((rf.time, rf.frequency, rf.positions, rf.pooled_by))
    assert fields[0] == fields[1]


def test_maps_of_different_rates_cannot_be_added():
    inputs = keras.Input((None, None, 1))
    one = layers.Conv2D(1, 3, strides=2, padding="same", name="strided")(inputs)
    other = layers.Conv2D(1, 3, padding="same", name="plain")(inputs)
    model = keras.Model(inputs, layers.Add(name="sum")([one, other]))
    with pytest.raises(ConfigError, match="'strided' and 'plain'.* 2 pixels apart .* 1 in"):
        rfkeras.receptive_field(model)


def test_field_before_and_after_a_dilated_branch():
    inputs = keras.Input((*SHAPE, 1))
    x = layers.Conv2D(1, 3, dilation_rate=(4, 2), padding="same")(inputs)
    rf = check_model(keras.Model(inputs, layers.Maximum()([x, inputs])), SHAPE)
    assert (rf.time, rf.frequency) == (AxisField(9, 1, -4), AxisField(5, 1, -2))
