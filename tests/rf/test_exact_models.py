"""The receptive field of the zoo's models: equal to their plans, and in physical units."""

import json
import time

import keras
import pytest

import rfkeras
import zoo
from rfkeras.errors import ConfigError
from rfkeras.rf import RHO_MAX, AxisField, compose, plan_backbone
from tests.helpers.configurations import configurations
from tests.helpers.receptive_field import check_field, open_all_paths, seen_pixels

SMALL = {"width": 4}


def build(name, **options):
    if "width" in zoo.model_info(name).options:
        options = {**SMALL, **options}
    return zoo.create_model(name, 2, **options)


@pytest.mark.parametrize("rho", range(RHO_MAX + 1))
def test_every_rho_on_both_axes(rho):
    pair = (rho, RHO_MAX - rho)
    rf = rfkeras.receptive_field(build("resnet_rf", rho=pair, frontend=None))
    plan = plan_backbone(pair)
    assert (rf.time, rf.frequency, rf.pooled_by) == (plan.time, plan.frequency, "logits")


@pytest.mark.parametrize("name", configurations())
def test_every_zoo_model_has_the_field_of_its_plan(name):
    rf = rfkeras.receptive_field(build(name))
    plan = zoo.model_info(name).plan_for(**SMALL)
    assert (rf.time, rf.frequency) == (plan.time, plan.frequency)
    assert rf.pooled_by == (None if name == "crnn" else "logits")
    assert rf.scale.n_mels == 256


@pytest.mark.parametrize(
    "options",
    [
        {"shake": True, "frequency_aware": True, "damping": 0.1, "damp_time": True},
        {"decomposition": 2, "branches": 3, "blocks": (4, 2, 1), "rho": (4, 3)},
    ],
)
def test_combined_options(options):
    rf = rfkeras.receptive_field(build("resnet_rf", **options))
    plan = zoo.model_info("resnet_rf").plan_for(**options)
    assert (rf.time, rf.frequency) == (plan.time, plan.frequency)


def test_units_at_rho_7():
    rf = rfkeras.receptive_field(build("resnet_rf", rho=7))
    assert (rf.time.size, rf.frequency.size) == (135, 135)
    assert rf.time_ms == pytest.approx(1000 * (134 * 512 + 2048) / 22050, rel=1e-12)
    assert rf.mel_bands == 135
    assert rf.positions == (None, 15)
    first, stop = rf.frequency.window(7)
    assert rf.hz_span() == rf.hz_span(7) == rf.scale.hz_span(first, stop)
    assert rf.hz_span(0)[0] == 0
    assert rf.hz_span(14)[1] == pytest.approx(22050 / 2)


def test_unlimited():
    rf = rfkeras.receptive_field(build("crnn"))
    assert (rf.time, rf.frequency, rf.time_ms, rf.mel_bands) == (None, None, None, None)
    assert rf.hz_span() == (0, pytest.approx(22050 / 2))
    assert any("time is unlimited: 'gru1'" in note for note in rf.notes)
    assert any("frequency is unlimited: 'gru1'" in note for note in rf.notes)
    assert "all x all" in str(rf)


def test_recurrent_network_up_to_its_recurrence():
    model = build("crnn", frontend=None)
    chain = zoo.model_info("crnn").plan_for()
    rf = rfkeras.receptive_field(model, "pool4")
    assert (rf.time, rf.frequency) == tuple(compose(chain.axis_layers(axis)) for axis in (0, 1))
    # The padding of the pooling layers depends on the number of frames.
    body = keras.Model(model.input, model.get_layer("pool4").output)
    for frames in (384, 389, 406):
        rf = rfkeras.receptive_field(body, input_shape=(frames, 8, 1))
        start, length, jump = -33, frames, 1
        for size, _ in chain.pooling:
            start -= jump * (-length % size // 2)
            length, jump = -(-length // size), jump * size
        assert rf.time == AxisField(162, 96, start), frames
        assert not [note for note in rf.notes if "taken as" in note]
        open_all_paths(body)
        assert check_field(rf.time, seen_pixels(body, (frames, 8), 0)) >= 2


def test_table_and_numbers():
    rf = rfkeras.receptive_field(build("resnet_rf", rho=7))
    lines = rf.table().splitlines()
    row = next(line.split() for line in lines if line.startswith("stage2_block1/branch1/conv1"))
    assert row[1:] == "Conv2D 135 3,204 53 % 16 -59".split()
    assert "135 x 135 pixels; 3204 ms; 135 mel bands, 686 to 4447 Hz" in str(rf)
    assert next(line for line in lines if line.startswith("logits")).endswith(
        "pools over time and frequency"
    )
    assert str(rf) in lines
    numbers = json.loads(json.dumps(rf.to_dict()))
    assert numbers["time"] == {"size": 135, "jump": 16, "start": -59}
    assert numbers["pooled_by"] == "logits"
    assert len(numbers["layers"]) == len(rf.layers)
    assert numbers["scale"]["hop_samples"] == 512


def test_layers_before_the_spectrogram_are_counted_in_samples():
    waveform = keras.Input((22050,))
    x = rfkeras.layers.RandomGain(name="gain")(waveform)
    x = keras.layers.Reshape((-1, 1))(x)
    x = keras.layers.Conv1D(1, 3, padding="same", name="emphasis")(x)
    x = rfkeras.frontend.create_frontend("mel_32k")(x)
    x = rfkeras.layers.SpecAugment()(rfkeras.layers.RandomTimeRoll()(x))
    model = keras.Model(waveform, keras.layers.Conv2D(1, 3, name="conv")(x))
    rf = rfkeras.receptive_field(model)
    gain, _, emphasis, frontend, *_, conv = rf.layers
    assert [row.in_pixels for row in (gain, emphasis, frontend, conv)] == [False] * 2 + [
        True
    ] * 2
    assert emphasis.time.size == 3
    assert frontend.time == AxisField()
    assert rf.time == AxisField(3)
    assert rf.positions == (1 + 22050 // 320 - 2, 126)
    assert rf.time_ms == pytest.approx(1000 * (2 * 320 + 800 + 2) / 32000)


def test_spectrograms_of_two_frontends_cannot_be_combined():
    waveform = keras.Input((22050,))
    one, other = (
        rfkeras.frontend.Frontend(22050, name=name)(waveform) for name in ("first", "second")
    )
    model = keras.Model(waveform, keras.layers.Add()([one, other]))
    with pytest.raises(ConfigError, match="'first' and 'second' are computed from different"):
        rfkeras.receptive_field(model)


def test_tracing_is_fast():
    model = build("resnet_rf")
    rfkeras.receptive_field(model)  # imports the rules
    start = time.process_time()
    rfkeras.receptive_field(model)
    assert time.process_time() - start < 0.5


def test_short_name_is_the_same_function():
    model = build("resnet_rf", frontend=None)
    assert rfkeras.receptive_field(model) == rfkeras.rf.receptive_field(model)
