"""When frames are: against clicks, whose times are known."""

import keras
import numpy as np
import pytest
from keras import layers

import zoo
from rfkeras.receptive_field import SpectrogramScale
from rfkeras.tagging import FrameTimes, StreamTagger, frame_times
from tests.tagging.taggers import CLASSES, RATE_HZ, own_tagger, small_frontend, zoo_tagger


def adding(x):
    """Convolutions of ones, so that whatever a frame hears raises it."""
    ones = {"kernel_initializer": "ones", "use_bias": False}
    x = layers.Conv2D(1, (5, 1), strides=(2, 1), **ones)(layers.ZeroPadding2D((2, 0))(x))
    x = layers.Conv2D(1, (3, 1), padding="same", **ones)(x)
    return layers.AveragePooling2D((2, 1))(x)


@pytest.fixture(scope="module")
def adder():
    model = own_tagger(adding)
    model.layers[-2].set_weights([np.ones((1, 1, 1, CLASSES)), np.zeros(CLASSES)])
    return StreamTagger(model, 2.0)


def test_a_click_moves_the_frames_whose_windows_hold_it(adder):
    times = adder.frames
    silence = np.zeros(6 * RATE_HZ, np.float32)
    quiet = np.concatenate([piece.frame_logits for piece in adder.stream([silence])])[:, 0]
    centres = times.centres_ms(len(quiet))
    analysis_ms = SpectrogramScale(RATE_HZ, 256, 64, 24).window_ms
    for sample in np.random.default_rng(0).integers(0, len(silence), 20):
        click = silence.copy()
        click[sample] = 1.0
        loud = np.concatenate([piece.frame_logits for piece in adder.stream([click])])[:, 0]
        away = np.abs(centres - 1000 * sample / RATE_HZ)
        moved = loud - quiet
        assert (moved[away > times.window_ms / 2] == 0).all()
        # The analysis window fades to nothing at its own ends.
        assert (moved[away < (times.window_ms - analysis_ms / 2) / 2] > 0).all()
        assert away[np.argmax(moved)] <= times.stride_ms / 2 + 1000 * 64 / RATE_HZ


def test_times_in_numbers(adder):
    # 4 spectrogram frames of 16 ms apart; each sees 5, then 2 more to either side, then 2 more
    # to one: 11 of them, 10 steps and a window of 64 ms. The first begins 4 before frame 0.
    assert adder.frames == FrameTimes(64.0, 16.0, 224.0)
    np.testing.assert_array_equal(adder.frames.centres_ms(3), [16, 80, 144])
    np.testing.assert_array_equal(adder.frames.starts_ms(3), [0, 48, 112])
    np.testing.assert_array_equal(adder.frames.ends_ms(3), [48, 112, 176])


def test_times_of_other_models():
    resnet = frame_times(zoo_tagger("resnet_rf_tiny", rho=22, width=4))
    assert resnet == FrameTimes(16 * 16.0, 8 * 16.0, 614 * 16.0 + 64)
    crnn = frame_times(zoo_tagger("crnn_tiny", width=4))
    assert crnn == FrameTimes(96 * 16.0, 47.5 * 16.0, None)
    assert frame_times(zoo_tagger("crnn_tiny", width=4, summary="last")) is None
    no_units = zoo.create_model("resnet_rf_tiny", num_classes=2, width=4, frontend=None)
    assert frame_times(no_units) is None
    finer = own_tagger(lambda x: keras.layers.UpSampling2D((2, 1))(x), small_frontend())
    assert frame_times(finer) == FrameTimes(8.0, 0.0, 64.0)
