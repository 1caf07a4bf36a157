"""Wrapped layers, initial states, activations that are layers, custom methods, attention."""

import keras
import pytest
from keras import layers, ops

import rfkeras
from rfkeras.errors import ConfigError
from rfkeras.rf import AxisField, register_rule

TIME, FREQUENCY = 8, 12


def field(inputs, outputs, **options):
    return rfkeras.receptive_field(keras.Model(inputs, outputs), **options)


def maps(name=None):
    return keras.Input((TIME, FREQUENCY, 1), name=name)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", None])
def test_both_directions_of_convolutional_recurrences(merge_mode):
    inputs = maps()
    layer = layers.Bidirectional(
        layers.ConvLSTM1D(2, 1, return_sequences=True),
        merge_mode=merge_mode,
        backward_layer=layers.ConvLSTM1D(
            2, 3, padding="same", return_sequences=True, go_backwards=True
        ),
        name="both",
    )
    outputs = layer(inputs)
    outputs = layers.Concatenate()(outputs) if merge_mode is None else outputs
    rf = field(inputs, outputs)
    assert rf.time is None
    assert rf.frequency is None
    rows = {row.name.split("/")[-1]: row.frequency for row in rf.layers if "/" in row.name}
    assert list(rows.values()) == [AxisField(), None]


def test_both_directions_with_kernel_1_keep_frequencies_separate():
    inputs = maps()
    rf = field(
        inputs, layers.Bidirectional(layers.ConvLSTM1D(4, 1, return_sequences=True))(inputs)
    )
    assert (rf.time, rf.frequency) == (None, AxisField())


@pytest.mark.parametrize("merge_mode", ["concat", None])
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_both_directions_return_their_states(kind, merge_mode):
    inputs = keras.Input((TIME, 3))
    layer = layers.Bidirectional(kind(2, return_state=True), merge_mode=merge_mode)
    for output in layer(inputs):
        assert field(inputs, output).time is None


def test_wrapped_class_without_a_rule_is_an_error():
    class Odd(layers.LSTM):
        def call(self, *args, **kwargs):
            return super().call(*args, **kwargs)

    inputs = keras.Input((TIME, 3))
    with keras.saving.custom_object_scope({"Odd": Odd}):
        outputs = layers.Bidirectional(Odd(2, name="odd"), name="both")(inputs)
    with pytest.raises(ConfigError, match="'both/forward_odd'.*overrides the `call` of LSTM"):
        field(inputs, outputs)


@pytest.mark.parametrize("both", [False, True])
def test_initial_states_are_seen_by_every_step(both):
    chosen, steps = keras.Input((TIME, 3), name="chosen"), keras.Input((TIME, 5), name="steps")
    states = [layers.Conv1D(2, 3)(chosen)[:, 0] for _ in range(2 if both else 1)]
    layer = layers.GRU(2, return_sequences=True, name="gru")
    layer = layers.Bidirectional(layer, name="gru") if both else layer
    outputs = layer(steps, initial_state=states if both else states[0])
    rf = rfkeras.receptive_field(
        keras.Model([chosen, steps], outputs), "gru", input_name="chosen"
    )
    assert rf.time == AxisField(3, 0)
    rf = rfkeras.receptive_field(
        keras.Model([chosen, steps], outputs), "gru", input_name="steps"
    )
    assert rf.time is None


def test_initial_states_of_convolutional_recurrences_are_seen():
    chosen, steps = maps("chosen"), maps("steps")
    first = layers.Conv2D(2, 1)(chosen)[:, 0]
    outputs = layers.ConvLSTM1D(2, 1)(steps, initial_state=[first, first])
    rf = field([chosen, steps], outputs, input_name="chosen")
    assert (rf.time, rf.frequency) == (AxisField(1, 0), None)


class Scaled(layers.Layer):
    def call(self, x):
        return 2.0 * x

    def trace_receptive_field(self, inputs, call):
        return inputs


class Wider(Scaled):
    def call(self, x):
        return x + ops.roll(x, 1, axis=1)


class WiderWithMethod(Wider):
    def trace_receptive_field(self, inputs, call):
        return inputs.unlimited(1, "rolled")


def test_method_does_not_apply_to_a_subclass_that_overrides_call():
    class Named(Scaled):
        pass

    inputs = maps()
    assert field(inputs, Named()(inputs)).time == AxisField()
    assert field(inputs, WiderWithMethod()(inputs)).time is None
    with pytest.raises(ConfigError, match="'wider'.*overrides the `call`.*Scaled"):
        field(inputs, Wider(name="wider")(inputs))


def test_rule_can_be_registered_where_a_method_does_not_apply():
    class Widest(Wider):
        pass

    inputs = maps()

    @register_rule(Widest)
    def widest(layer, inputs, call):
        return inputs.slide(1, 2, padding="causal")

    assert field(inputs, Widest()(inputs)).time == AxisField(2, 1, -1)


@pytest.mark.parametrize(
    "part",
    [
        lambda activation: layers.Conv2D(4, 3, activation=activation),
        lambda activation: keras.Sequential(
            [layers.Conv2D(4, 3), layers.Activation(activation)]
        ),
    ],
)
def test_activations_that_are_layers(part):
    inputs = maps()
    rf = field(inputs, part(layers.Softmax(axis=1))(inputs))
    assert (rf.time, rf.frequency) == (None, AxisField(3))
    rf = field(inputs, part(layers.LeakyReLU())(inputs))
    assert (rf.time, rf.frequency, rf.notes) == (AxisField(3), AxisField(3), ())


def test_notes_before_an_activation_that_is_a_layer_stay_with_their_layer():
    inputs = keras.Input((None, 12, 1))
    conv = layers.Conv2D(
        2, 3, strides=2, padding="same", activation=layers.ReLU(name="relu"), name="conv"
    )
    dense = layers.Dense(2, activation=layers.ReLU(), name="dense")
    rf = field(inputs, dense(layers.Permute((1, 3, 2))(conv(inputs))))
    notes = {row.name: row.note for row in rf.layers}
    assert "multiple of 2" in notes["conv"]
    assert notes["conv/relu"] == ""
    assert "read as features" in notes["dense"]
    assert any(note.startswith("frequency is unlimited: 'dense'") for note in rf.notes)


def test_functions_as_activations_count_as_pointwise():
    inputs = maps()
    rf = field(inputs, layers.Conv2D(1, 3, activation=lambda x: ops.relu(x))(inputs))
    assert rf.time == AxisField(3)
    assert "taken to work position by position" in rf.notes[0]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ((2,), (AxisField(), None)),
        ((-2,), (AxisField(), None)),
        ((1,), (None, AxisField())),
        ((1, 2), (None, None)),
        (None, (None, None)),
    ],
)
def test_attention_along_some_axes(axes, expected):
    inputs = maps()
    layer = layers.MultiHeadAttention(2, 3, attention_axes=axes)
    rf = field(inputs, layer(inputs, inputs))
    assert (rf.time, rf.frequency) == expected
    # A new layer: in Keras 3.15, a second call of the first is not connected to its inputs.
    layer = layers.MultiHeadAttention(2, 3, attention_axes=axes)
    _, weights = layer(inputs, inputs, return_attention_scores=True)
    rf = field(inputs, ops.sum(weights, -1))
    assert (rf.time, rf.frequency) == (None, None)


def test_attention_along_one_axis_reads_windows_of_the_other_tensors():
    inputs = maps()
    value = layers.Conv2D(2, (5, 1), padding="same")(inputs)
    outputs = layers.MultiHeadAttention(1, 2, attention_axes=(2,))(inputs, value[:, :, ::2])
    assert field(inputs, outputs).time == AxisField(5, 1, -2)


def test_all_positions_see_what_an_attention_mask_sees():
    inputs = keras.Input((TIME, 3))
    constant = ops.ones((1, TIME, 3))
    read = ops.greater(ops.matmul(inputs, ops.transpose(inputs, (0, 2, 1))), 0.0)
    other = keras.Input((TIME, 3), name="other")
    outputs = layers.MultiHeadAttention(1, 2)(other, other, attention_mask=read)
    rf = field([inputs, other], outputs, input_name=inputs.name)
    assert rf.time is None
    outputs = layers.MultiHeadAttention(1, 2)(inputs, constant)
    assert field(inputs, outputs).time is None


def test_attention_inside_time_distributed():
    step = keras.Input((FREQUENCY, 1))
    model = keras.Model(step, layers.MultiHeadAttention(1, 2)(step, step))
    inputs = maps()
    rf = field(inputs, layers.TimeDistributed(model)(inputs))
    assert (rf.time, rf.frequency) == (AxisField(), None)


def test_nonzero_positions_are_counted():
    inputs = maps()
    counted = ops.cast(ops.count_nonzero(inputs, axis=1), "float32")
    rf = field(inputs, counted)
    assert (rf.time, rf.frequency) == (AxisField(), AxisField())
    assert rf.pooled_by.startswith("count_nonzero")


def test_nested_model_with_a_constant_input():
    one, other = maps(), maps()
    inner = keras.Model(
        [one, other], layers.Add()([layers.Conv2D(1, 3, padding="same")(one), other])
    )
    inputs = maps()
    constant = ops.ones((1, TIME, FREQUENCY, 1))
    assert field(inputs, inner([inputs, constant])).time == AxisField(3, 1, -1)
    assert field(inputs, inner([constant, inputs])).time == AxisField()
