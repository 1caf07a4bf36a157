"""Milliseconds and Hz of spectrogram pixels, compared with librosa and the front-end."""

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfkeras.errors import ConfigError
from rfkeras.frontend import PRESETS, Frontend, create_frontend
from rfkeras.frontend.presets import (
    SpectrogramScale,
    register_frontend,
    scale_of_frontend,
    scale_of_preset,
)
from tests.helpers.processes import run

SCALE = scale_of_preset("perceptual_mel_22k")
few = settings(max_examples=60, derandomize=True, deadline=None)
scales = st.builds(
    SpectrogramScale,
    sample_rate_hz=st.integers(8000, 96000),
    window_samples=st.integers(64, 8192),
    hop_samples=st.integers(16, 4096),
    n_mels=st.integers(8, 512),
)


@few
@given(scales)
def test_band_edges_equal_librosa(scale):
    edges = scale.band_edges_hz()
    expected = librosa.mel_frequencies(
        scale.n_mels + 2, fmin=0.0, fmax=scale.sample_rate_hz / 2, htk=False
    )
    np.testing.assert_allclose(edges, expected, rtol=1e-12, atol=1e-8)
    for band in (0, scale.n_mels - 1):
        assert scale.band_centre_hz(band) == pytest.approx(expected[band + 1])
    # To the nearest float: the last edge is half the sample rate.
    assert scale.hz_span(0, scale.n_mels) == pytest.approx((0.0, scale.sample_rate_hz / 2))


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_equals_the_built_front_end(preset):
    frontend = create_frontend(preset)
    scale = scale_of_preset(preset)
    assert scale == scale_of_frontend(frontend)
    assert scale.hop_ms == frontend.hop_ms


@pytest.mark.parametrize("preset", PRESETS)
def test_filters_are_zero_outside_the_edges_of_their_bands(preset):
    frontend, scale = create_frontend(preset), scale_of_preset(preset)
    filters = np.asarray(frontend.mel.filterbank)
    bins_hz = np.linspace(0, scale.sample_rate_hz / 2, len(filters))
    for band in (scale.n_mels // 4, scale.n_mels // 2, scale.n_mels - 1):
        low, high = scale.hz_span(band, band + 1)
        inside = (bins_hz > low * (1 + 1e-6)) & (bins_hz < high * (1 - 1e-6))
        assert inside.any()
        # Depending on the NumPy version, a bin at an edge has 0 or a rounding error.
        np.testing.assert_array_equal(filters[:, band] > 1e-9 * filters[:, band].max(), inside)


def test_135_frames_are_134_hops_and_a_window():
    assert SCALE.ms(135) == pytest.approx(1000 * (134 * 512 + 2048) / 22050)
    assert SCALE.ms(1) == SCALE.window_ms == pytest.approx(1000 * 2048 / 22050)
    assert SCALE.time_s(43) == 43 * 512 / 22050


@few
@given(scales, st.integers(1, 5000))
def test_frames_within_ms_inverts_ms(scale, frames):
    span = scale.ms(frames)
    assert scale.frames_within_ms(span) == frames
    assert scale.frames_within_ms(span - 0.5 * scale.hop_ms) == frames - 1
    assert scale.frames_within_ms(0.999 * scale.window_ms) == 0


@few
@given(scales, st.floats(0, 1))
def test_hz_and_bands_are_inverse(scale, share):
    band = share * (scale.n_mels - 1)
    assert scale.band_of_hz(scale.band_centre_hz(band)) == pytest.approx(band, abs=1e-9)
    whole = round(band)
    low, high = scale.hz_span(whole, whole + 1)
    assert low < scale.band_centre_hz(whole) < high


@few
@given(scales, st.floats(0.01, 0.99), st.integers(1, 700))
def test_bands_around_a_frequency_have_it_in_their_middle(scale, share, bands):
    hz = share * scale.sample_rate_hz / 2
    first, stop = scale.bands_around(hz, bands)
    assert stop - first == bands
    middle = np.clip(scale.band_of_hz(hz), 0, scale.n_mels - 1)
    assert abs((first + stop - 1) / 2 - middle) <= 0.5 + 1e-9
    # More bands are never narrower, and at most the whole spectrogram.
    widths = [scale.bandwidth_hz(n, hz) for n in (bands, bands + 1)]
    assert 0 < widths[0] <= widths[1] <= scale.sample_rate_hz / 2 * (1 + 1e-12)


def test_span_ignores_bands_outside_the_spectrogram():
    assert SCALE.hz_span(-40, 10) == SCALE.hz_span(0, 10)
    assert SCALE.hz_span(200, 300) == SCALE.hz_span(200, 256)
    for nowhere in ((-20, 0), (256, 300), (5, 5)):
        with pytest.raises(ConfigError, match="mel bands 0 to 255"):
            SCALE.hz_span(*nowhere)


def test_invalid_values_are_rejected():
    with pytest.raises(ConfigError, match="hop_samples must be positive"):
        SpectrogramScale(22050, 2048, 0, 256)
    with pytest.raises(ConfigError, match="at least 1 frame"):
        SCALE.ms(0)
    with pytest.raises(ConfigError, match="half the sample rate, 11025 Hz"):
        SCALE.bands_around(11025.0, 10)
    with pytest.raises(ConfigError, match="Did you mean 'mel_32k'"):
        scale_of_preset("mel_32")


def test_units_and_rho_for_import_no_framework():
    code = (
        "import sys; from rfkeras.rf import explain_rho, rho_for; "
        "print(rho_for(time_ms=3300), explain_rho()[7].time); "
        "print(sorted({'tensorflow', 'keras', 'matplotlib', 'librosa'} & set(sys.modules)))"
    )
    assert run("-c", code, fork=False)[1].splitlines() == ["7 135", "[]"]


def test_a_registered_preset_has_the_defaults_of_the_layer():
    register_frontend("bare_8k", sample_rate_hz=8000)
    register_frontend("short_8k", sample_rate_hz=8000, n_fft=512)
    for name, layer in (
        ("bare_8k", Frontend(8000)),
        ("short_8k", Frontend(8000, n_fft=512, window_samples=512)),
    ):
        expected = {**layer.get_config(), "name": "frontend"}
        assert create_frontend(name).get_config() == expected
        assert scale_of_preset(name) == scale_of_frontend(layer)
