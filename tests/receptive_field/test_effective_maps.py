"""Which map is measured, of which part of a model, and what becomes of its borders."""

import json

import keras
import numpy as np
import pytest

import rfkeras
import zoo
from rfkeras.errors import ConfigError
from rfkeras.frontend import create_frontend
from rfkeras.receptive_field.effective import effective_receptive_field
from tests.receptive_field.effective_models import (
    as_kernel,
    linear_model,
    noise,
    shares,
    tagger,
)


def test_tags_by_name():
    filters = noise(2, 3, 3)
    model = linear_model(as_kernel(*filters))
    model.add(rfkeras.layers.ClipLogits(("a", "b")))
    field = effective_receptive_field(model, noise(1, 20, 20, 1), tags=["b", 0])
    assert list(field.tags) == ["b", "a"]
    np.testing.assert_allclose(field.tags["b"], shares(filters[1] ** 2), rtol=1e-5)
    with pytest.raises(ConfigError, match="Unknown tag 'B'.*Allowed: a, b"):
        effective_receptive_field(model, noise(1, 20, 20, 1), tags=["B"])


def test_the_map_that_any_layer_pools():
    kernel = noise(3, 5)
    model = linear_model(as_kernel(kernel))
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(4))
    field = effective_receptive_field(model, noise(1, 20, 20, 1), positions=4)
    np.testing.assert_allclose(field.energy, shares(kernel**2), rtol=1e-5)
    assert len(field.positions) == 4


def test_a_convolution_over_time_alone_sees_all_bands():
    model = keras.Sequential([keras.Input((None, 7)), keras.layers.Conv1D(1, 4)])
    field = effective_receptive_field(model, noise(2, 30, 7))
    kernel = model.layers[0].kernel.numpy()[..., 0]
    np.testing.assert_allclose(field.energy, shares(kernel**2), rtol=1e-5)
    assert (field.time.size, field.frequency) == (4, None)
    assert field.clipped == 0


def test_waveforms_are_measured_at_the_front_end():
    body = [keras.layers.Conv2D(2, (31, 9), activation="tanh"), rfkeras.layers.ClipLogits()]
    frontend = create_frontend("mel_32k")
    model = keras.Sequential([keras.Input((None,)), frontend, *body])
    waveforms = 0.1 * noise(3, 32000)
    field = effective_receptive_field(model, waveforms)
    without = keras.Sequential([keras.Input((None, None, 1)), *body])
    same = effective_receptive_field(without, frontend(waveforms))
    np.testing.assert_allclose(field.energy, same.energy, rtol=1e-4, atol=1e-9)
    assert same.scale is None
    assert same.span_ms(3) is None
    # 31 frames 10 ms apart and 25 ms long
    assert field.span_ms(field.time.size) == pytest.approx(30 * 10 + 25)
    assert field.radius_ms(0.5) == pytest.approx(10 * field.radius(0.5)[0])
    figures = json.loads(json.dumps(field.to_dict()))
    assert (figures["exact_frames"], figures["exact_bands"]) == (31, 9)
    assert figures["window_95_frames"] == field.window(0.95)[0]


def test_an_axis_that_the_window_does_not_fit_into_is_seen_from_its_middle():
    model = tagger(num_classes=2, rho=(0, 8), width=2)
    field = effective_receptive_field(model, noise(2, 64, 80, 1))
    assert (field.time.size, field.frequency.size) == (23, 167)
    assert field.energy.shape == (23, 80)
    assert len({band for _, band in field.positions}) == 1
    assert field.clipped == len(field.positions) == 2  # all that fit in along time
    assert field.outside_share == 0.0
    assert abs(field.centre[1] - 40) <= 8  # half of the 16 bands between two positions
    assert field.box(field.positions[0])[1] == (0, 80)


def test_a_field_without_limit_is_the_whole_spectrogram():
    keras.utils.set_random_seed(0)
    model = zoo.create_model("crnn", 2, width=2, units=4, frontend=None, initialization="he")
    field = effective_receptive_field(model, noise(1, 300, 120, 1))
    assert (field.time, field.frequency) == (None, None)
    assert field.energy.shape == (300, 120)
    assert field.ratio() == (None, None)
    assert field.clipped == 0
    assert field.positions == ((1, 0),)
    assert field.centre == (round(2 * 1.5 * 300 / 4) / 2, 60.0)
    # A recurrent state depends on all that came before.
    assert field.energy[:100].sum() > 0
    with pytest.raises(ConfigError, match="no limit along time"):
        effective_receptive_field(model, noise(1, 300, 120, 1), positions=[(0, 0), (1, 0)])


def test_windows_over_the_border_are_cut_and_counted():
    kernel = noise(5, 5)
    model = linear_model(as_kernel(kernel), padding="same")
    clip = noise(1, 12, 12, 1)
    corner = effective_receptive_field(model, clip, positions=[(0, 0)])
    np.testing.assert_allclose(corner.energy, shares(kernel[2:, 2:] ** 2), rtol=1e-5)
    assert (corner.clipped, corner.offset, corner.centre) == (1, (2, 2), (0.5, 0.5))
    assert corner.box((0, 0)) == ((0, 3), (0, 3))
    assert corner.curve(0)[0][-1] == 5
    both = effective_receptive_field(model, clip, positions=[(0, 0), (6, 6)])
    expected = kernel**2
    expected[2:, 2:] *= 2
    np.testing.assert_allclose(both.energy, shares(expected), rtol=1e-5)
    assert both.clipped == 1


def test_the_map_of_any_layer():
    model = tagger(num_classes=2)
    clips = noise(1, 80, 80, 1)
    stem = effective_receptive_field(model, clips, layer="stem_conv", tags="all", positions=1)
    kernel = model.get_layer("stem_conv").kernel.numpy()
    np.testing.assert_allclose(stem.energy, shares((kernel**2).sum((2, 3))), rtol=1e-5)
    after = effective_receptive_field(model, clips, spectrogram_layer="stem_relu", positions=2)
    assert after.energy.shape == (14, 14)  # 31 pixels are 5, and 13 steps of 2
    assert after.scale is None
