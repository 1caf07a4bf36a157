"""The front-end's optimised computation equals the plain formula of kapre's layers."""

import kapre
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.frontend import PRESETS, Frontend, create_frontend
from rfkeras.frontend.kapre_layers import (
    CentredSTFT,
    GroupedFilterbank,
    floored_log,
    frames,
    power,
    reflected,
)
from rfkeras.frontend.layer import AMIN
from rfkeras.frontend.numpy_mel import group_bands
from tests.helpers.spectrograms import music

SMALL = {"sample_rate_hz": 8000, "n_fft": 256, "window_samples": 200, "hop_samples": 80}


def plain(layer, waveforms):
    """Compute the layer's output with kapre's layers, dense and for the whole batch."""
    stft = kapre.STFT(
        n_fft=layer.n_fft,
        win_length=layer.window_samples,
        hop_length=layer.hop_samples,
        window_name="hann_window",
        input_data_format="channels_first",
        output_data_format="channels_first",
    )
    fixed = layer.fixed_floor
    decibel = kapre.MagnitudeToDecibel(
        ref_value=1.0, amin=layer.amin, dynamic_range=1e6 if fixed else layer.dynamic_range_db
    )
    # kapre uses the reference for amin if it is smaller.
    reference_db = 10 * np.log10(max(layer.amin, 1.0))
    half = layer.window_samples // 2
    x = tf.pad(waveforms, [[0, 0], [0, 0], [half, half]], mode="REFLECT")
    values = tf.square(kapre.Magnitude()(stft(x)))
    bank = layer.mel.filterbank
    if layer.order == "db_then_mel":
        mel = tf.tensordot(decibel(values) + reference_db, bank, 1)
    else:
        mel = decibel(tf.tensordot(values, bank, 1)) + reference_db
    mel += layer.offset_db.astype("float32")
    return tf.transpose((mel - layer.mean_db) / layer.std_db, (0, 2, 3, 1))


def fitted(layer, channels=1):
    layer.build((None, None) if channels == 1 else (None, None, channels))
    rng = np.random.default_rng(1)
    layer.mean_db.assign(rng.normal(-30, 5, layer.n_mels))
    layer.std_db.assign(rng.uniform(5, 15, layer.n_mels))
    return layer


@pytest.mark.parametrize("fixed_floor", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_spectrograms_equal_the_plain_formula(name, fixed_floor):
    layer = fitted(create_frontend(name, fixed_floor=fixed_floor), channels=2)
    mono = np.stack([music(layer.sample_rate_hz, 1.0) * level for level in (1.0, 0.03)])
    stereo = np.stack([mono, 0.1 * mono[:, ::-1]], axis=-1)
    expected = plain(layer, stereo.transpose(0, 2, 1))
    compiled = tf.function(layer, autograph=False)
    for ours in (layer(stereo), compiled(tf.constant(stereo))):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ["db_then_mel", "mel_then_db"])
def test_gradients_equal_the_plain_formula(order):
    options = {**SMALL, "n_mels": 20, "order": order, "a_weighting": order == "db_then_mel"}
    layer = fitted(Frontend(**options))
    waveforms = tf.constant(np.stack([music(8000, 0.3), 0.2 * music(8000, 0.3)[::-1]]))

    def gradient(function, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.square(function(x)))
        return tape.gradient(total, x)

    expected = gradient(lambda x: plain(layer, x[:, None]), waveforms).numpy()
    compiled = tf.function(lambda x: gradient(layer, x), autograph=False)
    for ours in (gradient(layer, waveforms), compiled(waveforms)):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_xla_changes_no_value():
    layer = fitted(Frontend(**SMALL, n_mels=20))
    waveforms = tf.constant(music(8000, 0.3)[None].repeat(3, 0))
    compiled = tf.function(layer, autograph=False, jit_compile=True)
    np.testing.assert_allclose(compiled(waveforms), layer(waveforms), atol=1e-5)


def test_statistics_stay_variables():
    layer = fitted(Frontend(**SMALL, n_mels=20))
    waveforms = tf.constant(music(8000, 0.3)[None])
    compiled = tf.function(layer, autograph=False)
    before = compiled(waveforms).numpy()
    layer.mean_db.assign(layer.mean_db + 3.0 * layer.std_db)
    np.testing.assert_allclose(compiled(waveforms), before - 3.0, atol=1e-5)


def test_output_length_is_known_if_the_input_length_is():
    compiled = tf.function(Frontend(**SMALL, n_mels=20), autograph=False)
    known = compiled.get_concrete_function(tf.TensorSpec([None, 800]))
    assert known.outputs[0].shape.as_list() == [None, 11, 20, 1]


@pytest.mark.parametrize(
    ("n_fft", "window", "hop"), [(256, 200, 80), (256, 256, 64), (255, 101, 33)]
)
def test_spectra_of_centred_frames(n_fft, window, hop):
    stft = CentredSTFT(n_fft, window, hop, window_name="hann_window")
    x = np.stack([music(8000, 0.1), music(8000, 0.1)[::-1]])
    padded = np.pad(x, [(0, 0), (window // 2, window // 2)], mode="reflect")
    count = 1 + x.shape[1] // hop
    framed = np.stack([padded[:, k * hop : k * hop + window] for k in range(count)], axis=1)
    expected = np.fft.rfft(framed * tf.signal.hann_window(window).numpy(), n_fft)
    spectra = stft(x[:, None])
    np.testing.assert_allclose(spectra[:, 0], expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(
        power(spectra)[:, 0], np.abs(expected) ** 2, atol=1e-6 * np.abs(expected).max() ** 2
    )


def test_frames_and_reflections_copy_samples():
    x = np.arange(20, dtype="float32").reshape(2, 10)
    np.testing.assert_array_equal(
        reflected(x, 3, 2),
        np.pad(np.pad(x, [(0, 0), (3, 3)], mode="reflect"), [(0, 0), (0, 2)]),
    )
    np.testing.assert_array_equal(
        frames(x, 4, 3, 3), np.stack([x[:, k : k + 4] for k in (0, 3, 6)], axis=1)
    )


def test_floor_is_separate_for_each_clip():
    values = tf.constant([[1e-20, 1.0], [1e-20, 100.0]])
    np.testing.assert_allclose(
        floored_log(values, AMIN, 30.0), np.log([[1e-3, 1.0], [1e-1, 100.0]]), atol=1e-6
    )
    np.testing.assert_allclose(floored_log(values, AMIN, None)[:, 0], np.log(AMIN), rtol=1e-6)


@pytest.mark.parametrize("n_mels", [1, 3, 64])
def test_groups_multiply_like_the_full_matrix(n_mels):
    layer = GroupedFilterbank({"sample_rate": 8000, "n_freq": 129, "n_mels": n_mels})
    x = np.random.default_rng(0).normal(size=(2, 1, 3, 129)).astype("float32")
    expected = x @ np.asarray(layer.filterbank)
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)
    factors = np.linspace(1, 2, n_mels, dtype="float32")
    scaled = layer.apply(tf.constant(x), layer.scaled(factors))
    np.testing.assert_allclose(scaled, expected * factors, atol=1e-6)


def test_groups_are_narrow():
    filters = np.asarray(create_frontend("perceptual_mel_22k").mel.filterbank)
    groups = group_bands(filters, 4)
    assert [a for a, _, _, _ in groups[1:]] == [b for _, b, _, _ in groups[:-1]]
    assert (groups[0][0], groups[-1][1]) == (0, 256)
    assert sum((b - a) * (high - low) for a, b, low, high in groups) < 0.25 * filters.size


def test_filters_between_two_bins_are_empty():
    filters = np.zeros((5, 4), "float32")
    filters[1, 1] = filters[3, 3] = 1.0
    assert group_bands(filters, 4)[0][2:] == (4, 5)  # an empty group: one bin times zeros
    assert group_bands(np.zeros((5, 1), "float32"), 4) == [(0, 1, 4, 5)]
