"""Tracing a model: names, nested and shared layers, custom rules, errors."""

import doctest
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import rfkeras
from rfkeras.errors import ConfigError
from rfkeras.rf import AxisField, register_rule, rule_registry
from tests.helpers.receptive_field import check_model


def test_nested_shared_and_sequential_models():
    inner_input = keras.Input((None, None, 1))
    conv = layers.Conv2D(1, (3, 5), padding="same", name="conv")
    inner = keras.Model(inner_input, conv(conv(inner_input)), name="inner")
    outer = keras.Sequential(
        [keras.Input((48, 40, 1)), inner, layers.MaxPooling2D(2, name="pool")], name="outer"
    )
    inputs = keras.Input((48, 40, 1))
    x = layers.AveragePooling2D(2, name="down")(layers.Conv2D(1, 3, padding="same")(inputs))
    model = keras.Model(inputs, layers.Add(name="add")([outer(inputs), inner(x)]))
    rf = check_model(model, (48, 40))
    assert (rf.time.size, rf.frequency.size) == (12, 20)
    names = [row.name for row in rf.layers]
    assert "outer/inner/conv#1" in names
    assert "outer/inner/conv#2" in names
    assert "inner/conv#2" in names
    for name, sizes in (
        ("outer/inner/conv#1", (3, 5)),
        ("outer/inner", (5, 9)),
        ("outer", (6, 10)),
        ("inner/conv#1", (8, 12)),
    ):
        at = rfkeras.receptive_field(model, name)
        assert (at.time.size, at.frequency.size) == sizes, name
        assert at.layer == at.layers[-1].name == name


def test_layer_inside_a_block_can_be_chosen():
    inputs = keras.Input((None, None, 1))
    block = rfkeras.layers.ResidualBlock(2, ((3, 1), (5, 3)), branches=2, name="block")
    model = keras.Model(inputs, block(inputs))
    assert rfkeras.receptive_field(model, "block/branch2/conv1").time == AxisField(3, 1, -1)
    assert rfkeras.receptive_field(model, "block/shortcut_conv").time == AxisField()
    assert rfkeras.receptive_field(model).time == AxisField(7, 1, -3)


def test_only_layers_before_the_chosen_one_need_rules():
    inputs = keras.Input((30, 20, 1))
    x = layers.Conv2D(1, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Lambda(lambda x: x, name="odd")(x))
    assert rfkeras.receptive_field(model, "conv").time == AxisField(3)
    with pytest.raises(ConfigError, match="'odd'.*Lambda can do anything.*register_rule"):
        rfkeras.receptive_field(model)


def test_wrong_layer_suggests_the_nearest():
    inputs = keras.Input((30, 20, 1))
    model = keras.Model(inputs, layers.Conv2D(1, 3, name="first_conv")(inputs))
    with pytest.raises(ConfigError, match="Did you mean 'first_conv'"):
        rfkeras.receptive_field(model, "frst_conv")


def test_several_inputs_and_outputs():
    left, right = (keras.Input((None, 20, 1), name=name) for name in ("left", "right"))
    one = layers.Conv2D(1, 3, padding="same", name="one")(left)
    two = layers.Conv2D(1, 5, padding="same", name="two")(right)
    both = layers.Add(name="both")([one, two])
    model = keras.Model([left, right], [both, one])
    with pytest.raises(ConfigError, match="2 outputs.*both, one"):
        rfkeras.receptive_field(model)
    with pytest.raises(ConfigError, match="2 inputs.*left, right"):
        rfkeras.receptive_field(model, "both")
    with pytest.raises(ConfigError, match="Unknown input 'rihgt'.*'right'"):
        rfkeras.receptive_field(model, "both", input_name="rihgt")
    assert rfkeras.receptive_field(model, "both", input_name="left").time.size == 3
    assert rfkeras.receptive_field(model, "both", input_name="right").time.size == 5
    with pytest.raises(ConfigError, match="'one' does not depend on the input"):
        rfkeras.receptive_field(model, "one", input_name="right")


@pytest.mark.parametrize(
    "shape", [(30,), (30, 21, 1), (0, 20, 1), (30.0, 20, 1), (30, 20, 1, 1)]
)
def test_input_shapes_that_do_not_fit(shape):
    inputs = keras.Input((None, 20, 1))
    model = keras.Model(inputs, layers.Conv2D(1, 3)(inputs))
    with pytest.raises(ConfigError, match="input_shape must fit"):
        rfkeras.receptive_field(model, input_shape=shape)


def test_note_reports_an_assumed_length():
    inputs = keras.Input((None, 20, 1))
    model = keras.Model(
        inputs, layers.Conv2D(1, 4, strides=3, padding="same", name="c")(inputs)
    )
    rf = rfkeras.receptive_field(model)
    assert rf.notes == (
        "'c': unknown length of dimension 1 taken as a multiple of 3, for padding='same'",
    )
    assert rfkeras.receptive_field(model, input_shape=(31, 20, 1)).notes == ()


def test_models_without_a_graph():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    class Overridden(keras.Model):
        def call(self, x):
            return super().call(x) + ops.mean(x)

    inputs = keras.Input((30, 20, 1))
    outputs = layers.Conv2D(1, 3)(inputs)
    for model, message in (
        (Subclassed(), "must be a functional or Sequential model. Received: a .*Subclassed"),
        (keras.Sequential([layers.Conv2D(1, 3)]), "Sequential model with an unknown input"),
        (Overridden(inputs, outputs), "overrides `call`"),
        ("resnet_rf", "must be a functional or Sequential model. Received: a builtins.str"),
    ):
        with pytest.raises(ConfigError, match=message):
            rfkeras.receptive_field(model)


class Strided(keras.layers.Layer):
    """A layer that reads every second frame, without a rule."""

    def call(self, x):
        return x[:, 0::2] + x[:, 1::2]


class WithMethod(Strided):
    def trace_receptive_field(self, inputs, call):
        return inputs.slide(1, 2, 2)


class CarefulConv(keras.layers.Conv2D):
    def call(self, x):
        return super().call(x) + ops.mean(x)


@pytest.fixture
def own_rules(monkeypatch):
    monkeypatch.setattr(rule_registry, "_RULES", dict(rule_registry._RULES))


def test_error_for_unknown_layers_explains_what_to_do():
    inputs = keras.Input((30, 20, 1))
    model = keras.Model(inputs, Strided(name="mine")(inputs))
    with pytest.raises(ConfigError) as error:
        rfkeras.receptive_field(model)
    for part in ("'mine'", f"{__name__}.Strided", "register_rule(Strided)", "trace_receptive"):
        assert part in str(error.value)
    model = keras.Model(inputs, CarefulConv(1, 3)(inputs))
    with pytest.raises(ConfigError, match="It overrides the `call` of Conv2D"):
        rfkeras.receptive_field(model)
    model = keras.Model(inputs, ops.einsum("btfc->bftc", inputs))
    with pytest.raises(ConfigError, match=r"keras\.src\.ops\.numpy\.Einsum"):
        rfkeras.receptive_field(model)


@pytest.mark.usefixtures("own_rules")
def test_custom_rules():
    inputs = keras.Input((30, 20, 1))
    known = keras.Model(inputs, WithMethod()(inputs))
    assert check_model(known, (30, 20)).time == AxisField(2, 2)
    unknown = keras.Model(inputs, Strided()(inputs))

    @register_rule(Strided)
    def strided(layer, inputs, call):
        return inputs.slide(1, 2, 2)

    assert check_model(unknown, (30, 20)).time == AxisField(2, 2)

    @register_rule(f"{__name__}.CarefulConv", "keras.src.ops.numpy.Einsum")
    def by_name(layer, inputs, call):
        return inputs

    model = keras.Model(inputs, ops.einsum("btfc->btfc", inputs))
    assert rfkeras.receptive_field(model).time == AxisField()
    with pytest.raises(ConfigError, match="needs layer classes or their full names"):
        register_rule(3)(by_name)


@pytest.mark.usefixtures("own_rules")
def test_rule_that_contradicts_keras_is_an_error():
    inputs = keras.Input((30, 20, 1))
    model = keras.Model(inputs, Strided(name="mine")(inputs))
    register_rule(Strided)(lambda layer, inputs, call: inputs)
    with pytest.raises(ConfigError, match=r"'mine' gives.*\(None, 30, 20, 1\).*\(None, 15, 20"):
        rfkeras.receptive_field(model)


@pytest.mark.usefixtures("own_rules")
def test_the_example_in_the_documentation():
    class MyGatedConv(keras.layers.Layer):
        def __init__(self, width, filters):
            super().__init__()
            self.width, self.filters = width, filters
            self.conv = keras.layers.Conv1D(2 * filters, width, padding="same")

        def call(self, x):
            value, gate = ops.split(self.conv(x), 2, axis=-1)
            return value * ops.sigmoid(gate)

    (example,) = doctest.DocTestParser().get_examples(register_rule.__doc__)
    exec(example.source, {"register_rule": register_rule, "MyGatedConv": MyGatedConv})
    inputs = keras.Input((50, 4))
    rf = rfkeras.receptive_field(keras.Model(inputs, MyGatedConv(5, 3)(inputs)))
    assert rf.time == AxisField(5, 1, -2)


def test_inputs_that_are_not_maps():
    inputs = keras.Input((8,))
    with pytest.raises(ConfigError, match="no time axis"):
        rfkeras.receptive_field(keras.Model(inputs, layers.Dense(2)(inputs)))
    inputs = keras.Input((4, 8, 8, 8, 1))
    with pytest.raises(ConfigError, match="The input must be a waveform, or have the shape"):
        rfkeras.receptive_field(keras.Model(inputs, layers.Conv3D(2, 2)(inputs[:, 0])))


def test_kapre_layers():
    import kapre

    inputs = keras.Input((16000, 1))
    x = kapre.composed.get_melspectrogram_layer(
        n_fft=512, hop_length=128, sample_rate=16000, n_mels=40, return_decibel=True,
        input_data_format="channels_last", output_data_format="channels_last",
    )(inputs)  # fmt: skip
    x = kapre.ConcatenateFrequencyMap(data_format="channels_last")(x)
    x = kapre.Delta(win_length=5, data_format="channels_last")(x[..., :1])
    x = layers.Conv2D(2, (3, 5), strides=2)(x)
    rf = rfkeras.receptive_field(keras.Model(inputs, layers.GlobalMaxPooling2D()(x)))
    assert (rf.time, rf.frequency) == (AxisField(7, 2, -2), AxisField(5, 2))
    assert rf.positions == (60, 18)
    assert rf.time_ms == pytest.approx(1000 * (6 * 128 + 512) / 16000)
    assert rf.hz_span(0)[0] == 0
    other = kapre.composed.get_stft_magnitude_layer(
        n_fft=512, hop_length=128, pad_end=True, output_data_format="channels_first"
    )(inputs)
    x = layers.Conv2D(2, 3, data_format="channels_first")(other)
    rf = rfkeras.receptive_field(keras.Model(inputs, x))
    assert (rf.time, rf.frequency) == (AxisField(3), AxisField(3))
    assert rf.positions == (125 - 2, 257 - 2)
    assert rf.scale is None


def test_spectrogram_layers_of_keras():
    inputs = keras.Input((8000,))
    mel = layers.MelSpectrogram(num_mel_bins=32, sampling_rate=8000)(inputs)
    x = layers.Permute((2, 1))(mel)
    x = layers.Conv2D(1, (3, 5))(ops.expand_dims(x, -1))
    rf = rfkeras.receptive_field(keras.Model(inputs, x))
    assert (rf.time, rf.frequency) == (AxisField(3), AxisField(5))
    assert rf.positions[1] == 28
    inputs = keras.Input((800, 1))
    x = layers.STFTSpectrogram(frame_length=64, frame_step=16, expand_dims=True)(inputs)
    rf = rfkeras.receptive_field(keras.Model(inputs, layers.Conv2D(1, (3, 5))(x)))
    assert (rf.time, rf.frequency) == (AxisField(3), AxisField(5))


def test_importing_the_package_imports_no_framework():
    code = (
        "import sys, rfkeras.rf as rf; rf.register_rule('a.B'); "
        "print('numpy' in sys.modules, 'keras' in sys.modules, 'tensorflow' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["False", "False", "False"]


def test_constants_and_broadcasts():
    inputs = keras.Input((30, 20, 1))
    x = layers.Conv2D(1, 3, padding="same")(inputs)
    ramp = np.linspace(0.5, 1, 20, dtype="float32")[:, None]
    x = ops.where(x > 0, x * ramp, ops.zeros_like(inputs))
    x = ops.broadcast_to(x, (1, 30, 20, 3))
    rf = rfkeras.receptive_field(keras.Model(inputs, ops.clip(x, 0, 1)))
    assert (rf.time, rf.frequency) == (AxisField(3, 1, -1), AxisField(3, 1, -1))
