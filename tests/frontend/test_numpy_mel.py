"""The front-end by NumPy (rfkeras/frontend/numpy_mel.py)."""

import json

import numpy as np
import pytest
import tensorflow as tf

from rfkeras.frontend import PRESETS, Frontend, create_frontend
from rfkeras.frontend.numpy_mel import MelSpectrogram, hann_window, numpy_mel
from tests.helpers.taggers import music, small_frontend


def built(frontend, channels=None):
    frontend.build((None, None) if channels is None else (None, None, channels))
    return frontend


def check(frontend, audio, tolerance_db=2e-3):
    expected = frontend.mel_db(audio[None]).numpy()[0]
    found = numpy_mel(frontend).mel_db(audio)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=tolerance_db)


@pytest.mark.parametrize("fixed_floor", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_values_are_those_of_the_layer(preset, fixed_floor):
    frontend = built(create_frontend(preset, fixed_floor=fixed_floor))
    check(frontend, music(40_001))


@pytest.mark.parametrize("order", ["db_then_mel", "mel_then_db"])
@pytest.mark.parametrize("fixed_floor", [True, False])
def test_stereo_shares_one_floor(order, fixed_floor):
    frontend = built(
        small_frontend(
            order=order, fixed_floor=fixed_floor, a_weighting=order == "db_then_mel"
        ),
        2,
    )
    audio = music(9_000, channels=2)
    audio[:, 1] *= 1e-3
    check(frontend, audio)


@pytest.mark.parametrize("samples", [1, 100, 128, 129, 255, 256, 257])
def test_short_audio_is_padded(samples):
    check(built(small_frontend()), music(samples))


def test_windows_shorter_than_the_transform():
    frontend = Frontend(8000, 512, 300, 128, 40, "mel_then_db", False, fixed_floor=True)
    check(built(frontend), music(5_000))


def test_long_audio_is_computed_in_parts_that_join():
    frontend = built(small_frontend())
    numbers = numpy_mel(frontend)
    audio = music(64 * 600)
    whole = numbers.mel_db(audio)
    assert len(whole) == 601
    # A stretch in the middle, away from the padding at its ends.
    part = numbers.mel_db(audio[64 * 200 : 64 * 400])
    np.testing.assert_allclose(part[5:-5], whole[205:396], atol=1e-5)


def test_numbers_go_through_json():
    numbers = numpy_mel(built(create_frontend("mel_32k", fixed_floor=False)))
    again = MelSpectrogram.from_json(json.loads(json.dumps(numbers.as_json())))
    audio = music(20_000)
    np.testing.assert_array_equal(again.mel_db(audio), numbers.mel_db(audio))


def test_silence_is_at_the_floor():
    frontend = built(small_frontend(fixed_floor=False))
    check(frontend, np.zeros(2_000, np.float32))


@pytest.mark.parametrize("window", [1, 2, 199, 200])
def test_windows_are_those_of_tensorflow(window):
    expected = tf.signal.hann_window(window).numpy()
    np.testing.assert_allclose(hann_window(window), expected, atol=5e-7)


@pytest.mark.parametrize("samples", [16000, 16001, 50])
@pytest.mark.parametrize("window", [199, 200])
def test_odd_windows(window, samples):
    options = {"n_fft": 256, "window_samples": window, "hop_samples": 80, "n_mels": 20}
    check(built(Frontend(8000, **options, fixed_floor=True)), music(samples))
