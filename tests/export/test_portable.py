"""The convertible front-end and network against the Keras model."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.export.portable import OUTPUTS, PortableFrontend, PortableModel, PowerSpectrum
from rfkeras.frontend import Frontend, create_frontend
from rfkeras.layers import ClipLogits
from tests.helpers.small_models import LABELS, music, noise, small


@pytest.mark.parametrize(
    ("n_fft", "window"), [(1, 1), (7, 7), (12, 9), (441, 400), (1024, 800), (2048, 2048)]
)
def test_power_spectra_match_numpy(n_fft, window):
    spectrum = PowerSpectrum(n_fft, window)
    frames = noise(2, 3, window)
    hann = np.hanning(window) if window % 2 else np.hanning(window + 1)[:-1]
    expected = np.abs(np.fft.rfft(frames * hann, n_fft)) ** 2
    power = spectrum(tf.constant(frames.transpose(0, 2, 1))).numpy()
    np.testing.assert_allclose(
        power, expected.transpose(0, 2, 1), rtol=1e-4, atol=1e-6 * expected.max()
    )


def fitted(frontend, channels):
    frontend.build((None, None, *channels))
    rng = np.random.default_rng(0)
    frontend.mean_db.assign(rng.normal(-30, 5, frontend.n_mels))
    frontend.std_db.assign(rng.uniform(5, 15, frontend.n_mels))
    return frontend


@pytest.mark.parametrize("channels", [(), (2,)], ids=["mono", "stereo"])
@pytest.mark.parametrize("fixed_floor", [False, True])
@pytest.mark.parametrize("preset", ["perceptual_mel_22k", "mel_32k"])
def test_spectrograms_match_the_front_end(preset, fixed_floor, channels):
    frontend = fitted(create_frontend(preset, fixed_floor=fixed_floor, min_frames=5), channels)
    portable = PortableFrontend(frontend)
    for samples in (50, 12345):
        batch = np.stack([music(samples, *channels), noise(samples, *channels)])
        # 1 % of 10 dB: rounding where a band is 80 dB below the loudest.
        np.testing.assert_allclose(portable(tf.constant(batch)), frontend(batch), atol=1e-3)
    silence = np.zeros((1, 9000, *channels), "float32")
    np.testing.assert_allclose(portable(tf.constant(silence)), frontend(silence), atol=1e-5)


@pytest.mark.parametrize(
    ("n_fft", "window", "hop"), [(441, 401, 160), (509, 509, 33), (600, 300, 512)]
)
@pytest.mark.parametrize("order", ["db_then_mel", "mel_then_db"])
def test_odd_sizes(n_fft, window, hop, order):
    frontend = fitted(
        Frontend(16000, n_fft, window, hop, n_mels=20, order=order, a_weighting=False), ()
    )
    batch = np.stack([music(5000), noise(5000)])
    np.testing.assert_allclose(
        PortableFrontend(frontend)(tf.constant(batch)), frontend(batch), atol=1e-3
    )


def test_all_outputs_match_the_tagger():
    model = small()
    portable = PortableModel(model)
    batch = np.stack([music(30000, seed=5), music(30000, seed=6)])
    outputs, expected = portable.serve(batch), portable.expect(batch)
    reading = model.read(batch)
    for name, values in zip(
        OUTPUTS,
        (model.scores(batch), model.scores(batch, per="frame"), reading.embedding),
        strict=True,
    ):
        np.testing.assert_allclose(expected[name], values, atol=1e-6)
        np.testing.assert_allclose(outputs[name], values, atol=1e-5)
    assert np.ptp(expected["scores"]) > 0.1  # large enough to reveal wrong scores


def test_a_model_of_reduced_precision_is_converted_in_float32():
    whole = small(frontend=None)
    default = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        reduced = small(frontend=None)
    finally:
        keras.config.set_dtype_policy(default)
    reduced.set_weights(whole.get_weights())
    batch = noise(2, 40, 32, 1)
    np.testing.assert_array_equal(
        PortableModel(reduced).expect(batch)["scores"],
        PortableModel(whole).expect(batch)["scores"],
    )


def test_the_card_describes_the_file():
    model = small()
    model.head.thresholds = (0.1, 0.2, 0.3, 0.4)
    card = json.loads(json.dumps(PortableModel(model).card, default=str))
    assert card["labels"] == list(LABELS)
    assert card["thresholds"] == [0.1, 0.2, 0.3, 0.4]
    assert (card["input"], card["sample_rate_hz"], card["channels"]) == ("waveform", 22050, 1)
    assert card["frame_stride_ms"] == pytest.approx(4 * 512 / 22.05)
    assert PortableModel(model, labels="abcd").card["labels"] == list("abcd")
    with pytest.raises(ConfigError, match="4 outputs but 2 labels"):
        PortableModel(model, labels=("a", "b"))


def test_without_the_front_end_the_input_is_its_spectrogram():
    model = small()
    portable = PortableModel(model, frontend=False)
    assert (portable.input_name, portable.input_shape) == ("spectrogram", (None, None, 256, 1))
    batch = music(22050)[None]
    spectrogram = model.get_layer("frontend")(batch)
    np.testing.assert_allclose(
        portable.serve(spectrogram)["scores"], model.scores(batch), atol=1e-6
    )


def test_unsupported_models_are_rejected():
    waveform = keras.Input((None,), name="waveform")
    x = create_frontend("mel_32k")(keras.layers.Rescaling(0.5)(waveform))
    model = keras.Model(waveform, ClipLogits()(keras.layers.Conv2D(3, 1)(x)))
    with pytest.raises(ConfigError, match="has layers between its input and its front-end"):
        PortableModel(model)
    headless = keras.Model(waveform, create_frontend("mel_32k")(waveform))
    with pytest.raises(ConfigError, match="an output of shape"):
        PortableModel(headless)
