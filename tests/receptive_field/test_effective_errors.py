"""What cannot be measured is said before any work is done."""

import keras
import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.receptive_field import AxisField
from rfkeras.receptive_field.effective import effective_receptive_field
from rfkeras.receptive_field.effective.windows import (
    AxisMap,
    choose_positions,
    disjoint_groups,
)
from tests.receptive_field.effective_models import tagger

CLIP = np.random.default_rng(0).normal(size=(1, 64, 64, 1)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return tagger(num_classes=2, rho=0, width=2)


def test_an_untrained_network_is_explained():
    with pytest.raises(ConfigError, match='0 everywhere.*initialization="he"'):
        effective_receptive_field(
            tagger(num_classes=2, rho=0, width=2, initialization="published"), CLIP, positions=1
        )


def test_a_tag_that_ignores_its_input_is_named():
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 1)])
    model.set_weights([np.array([[[[1.0, 0.0]]]]), np.ones(2)])
    with pytest.raises(ConfigError, match="these tags have gradient 0 everywhere.*: 1."):
        effective_receptive_field(model, CLIP, tags="all", positions=1)


def test_weights_that_are_not_finite():
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 1)])
    model.set_weights([np.full((1, 1, 1, 2), np.nan), np.ones(2)])
    with pytest.raises(ConfigError, match="not finite"):
        effective_receptive_field(model, CLIP, positions=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": ["drums"]}, "Unknown tag 'drums'"),
        ({"tags": "drums"}, "tags must be"),
        ({"tags": [2]}, "from 0 to 1"),
        ({"tags": [-1]}, "from 0 to 1"),
        ({"tags": [1, "1"]}, "named once"),
        ({"tags": []}, "at least one tag"),
        ({"tags": [1.5]}, "from 0 to 1"),
        ({"positions": 0}, "at least 1"),
        ({"positions": True}, "at least 1"),
        ({"positions": "all"}, "at least 1"),
        ({"positions": [(0, 3)]}, r"from \(0, 0\) to \(2, 2\). Received: \(0, 3\)"),
        ({"positions": [(0, -1)]}, "on the map"),
        ({"positions": [3]}, "must be a pair"),
        ({"positions": [(0, 1, 2)]}, "must be a pair"),
        ({"positions": []}, "at least one position"),
        ({"positions": [(1, 1), (1, 1)]}, "none twice"),
        ({"clips_at_once": 0}, "clips_at_once"),
        ({"layer": "stem_cnv"}, "Unknown layer.*Did you mean 'stem_conv'"),
        ({"layer": "logits"}, "must have a map"),
        ({"layer": "stem_conv", "spectrogram_layer": "stem_relu"}, "does not follow"),
    ],
)
def test_arguments_that_do_not_fit(model, options, message):
    with pytest.raises(ConfigError, match=message):
        effective_receptive_field(model, CLIP, **options)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (CLIP[0], r"inputs must be an array \(clips, any, any, 1\).*Received: shape"),
        (CLIP[:0], "inputs must be an array"),
        (np.repeat(CLIP, 2, axis=-1), "inputs must be an array"),
        (CLIP * np.nan, "finite"),
        ([CLIP[0], CLIP[0][:5]], "all clips of one length"),
        (CLIP[:, :12], "12 frames and 64 bands leave no position"),
    ],
)
def test_inputs_that_do_not_fit(model, inputs, message):
    with pytest.raises(ConfigError, match=message):
        effective_receptive_field(model, inputs)


def test_models_that_cannot_be_cut():
    first, second = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    two = keras.Model([first, second], first + second)
    with pytest.raises(ConfigError, match="with 2 inputs"):
        effective_receptive_field(two, CLIP)
    waveform = keras.Input((None,))
    outer = keras.Model(waveform, tagger(num_classes=2, frontend="mel_32k")(waveform))
    with pytest.raises(ConfigError, match=r"model.get_layer\('resnet_rf'\)"):
        effective_receptive_field(outer, np.zeros((1, 32000)))


@pytest.mark.parametrize("number", [1, 2, 5, 16, 1000])
def test_chosen_positions_are_inside_and_spread(number):
    axes = (AxisMap(AxisField(40, 4, -3), 30, 120), AxisMap(AxisField(23, 2, -5), 30, 64))
    positions = choose_positions(axes, number)
    assert len(set(positions)) == len(positions) <= number
    assert len(positions) >= min(number, len(axes[0].inside()) * len(axes[1].inside())) / 2
    for position in positions:
        for axis, index in zip(axes, position, strict=True):
            first, stop = axis.window(index)
            assert 0 <= first < stop <= axis.pixels
    if number == 1:
        assert abs(axes[0].centre(positions[0][0]) - 60) <= 4
        assert abs(axes[1].centre(positions[0][1]) - 32) <= 2


def test_windows_of_a_group_do_not_touch():
    axes = (AxisMap(AxisField(40, 4, -3), 30, 120), AxisMap(AxisField(23, 2, -5), 30, 64))
    positions = choose_positions(axes, 1000)
    groups = disjoint_groups(axes, positions)
    assert sorted(sum(groups, ())) == sorted(positions)
    for group in groups:
        covered = np.zeros((120, 64), int)
        for time, band in group:
            (a, b), (c, d) = axes[0].window(time), axes[1].window(band)
            covered[a:b, c:d] += 1
        assert covered.max() == 1
    assert len(groups) < len(positions)


def test_windows_of_different_length_share_their_middle():
    field = AxisField(4, 1, 0, ((0, 4), (1, 3)))
    axis = AxisMap(field, 6, 10)
    assert [axis.window(index) for index in (0, 1, 2, 3)] == [(0, 4), (0, 4), (2, 6), (2, 6)]
