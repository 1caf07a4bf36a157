from __future__ import annotations

import numpy as np
import pytest

from rfkeras.synthesis.coding import Coding, LowRate

RATE_HZ = 44100
SAMPLES = 66001  # a multiple of no frame length

CODINGS = [
    Coding("mp3", 32000, 44100),
    Coding("mp3", 128000, 44100),
    Coding("aac", 32000, 44100),
    Coding("aac", 128000, 44100),
    Coding("opus", 16000, 48000),
    Coding("opus", 96000, 48000),
    Coding("vorbis", None, 22050),
    Coding("vorbis", None, 44100),
]


def label(coding: Coding) -> str:
    return f"{coding.codec}-{coding.bit_rate or coding.rate_hz}"


@pytest.fixture(scope="module")
def music() -> np.ndarray:
    """Return notes with sharp onsets, from 220 Hz to 4 kHz."""
    rng = np.random.default_rng(0)
    sound = np.zeros(SAMPLES)
    for start in range(0, SAMPLES, 8000):
        seconds = np.arange(SAMPLES - start) / RATE_HZ
        pitch_hz = 220 * 2 ** (rng.integers(0, 24) / 12)
        for overtone in (1, 2, 3, 5):
            wave = np.sin(2 * np.pi * pitch_hz * overtone * seconds + overtone)
            sound[start:] += 0.1 / overtone * wave * np.exp(-6 * seconds)
    return sound.astype(np.float32)


def lag_of(late: np.ndarray, early: np.ndarray) -> int:
    """Return the lag in samples at which two signals agree best."""
    size = 2 * len(early)
    products = np.fft.irfft(np.fft.rfft(late, size) * np.fft.rfft(early, size).conj())
    lag = int(np.argmax(products))
    return lag if lag < len(early) else lag - size


@pytest.mark.parametrize("coding", CODINGS, ids=label)
def test_coding_keeps_time_length_and_level(coding, music):
    coded = coding.apply(music, RATE_HZ)
    assert coded.shape == music.shape
    assert lag_of(coded, music) == 0
    # The first and the last note are there.
    for part in (slice(0, 4000), slice(-4000, None)):
        assert np.corrcoef(coded[part], music[part])[0, 1] > 0.9
        assert np.std(coded[part]) == pytest.approx(np.std(music[part]), rel=0.15)
    error = np.sqrt(np.mean((coded - music) ** 2)) / np.std(music)
    assert 1e-3 < error < 0.35


@pytest.mark.parametrize(
    ("codec", "rates", "rate_hz"),
    [
        ("mp3", (32000, 96000, 192000), 44100),
        ("aac", (32000, 64000, 160000), 44100),
        ("opus", (12000, 32000, 128000), 48000),
    ],
)
def test_a_lower_bit_rate_loses_more(codec, rates, rate_hz, music):
    noisy = music + np.random.default_rng(1).normal(0, 0.02, SAMPLES).astype(np.float32)
    errors = [
        float(np.std(Coding(codec, rate, rate_hz).apply(noisy, RATE_HZ) - noisy))
        for rate in rates
    ]
    assert errors[0] > 1.3 * errors[1] > 1.3 * 1.3 * errors[2]


@pytest.mark.parametrize("coding", CODINGS[::2], ids=label)
def test_coding_does_not_depend_on_the_level(coding, music):
    loud, soft = coding.apply(8 * music, RATE_HZ), coding.apply(music / 256, RATE_HZ)
    assert np.abs(8 * music).max() > 1
    np.testing.assert_allclose(loud, 2048 * soft, atol=1e-5)


@pytest.mark.parametrize("coding", CODINGS[::2], ids=label)
def test_a_few_samples_and_silence_survive(coding):
    for short in (np.ones(1, np.float32), np.full(7, -0.1, np.float32)):
        coded = coding.apply(short, RATE_HZ)
        assert coded.shape == short.shape
        assert np.isfinite(coded).all()
    assert not coding.apply(np.zeros(5000, np.float32), RATE_HZ).any()


@pytest.mark.parametrize("rate_hz", [8000, 16000, 32000])
def test_a_low_rate_removes_what_is_above_half_of_it(rate_hz):
    noise = np.random.default_rng(0).standard_normal(SAMPLES).astype(np.float32)
    played = LowRate(rate_hz).apply(noise, RATE_HZ)
    assert played.shape == noise.shape
    assert lag_of(played, noise) == 0
    frequencies = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)
    before, after = np.abs(np.fft.rfft(noise)), np.abs(np.fft.rfft(played))
    kept, removed = frequencies < 0.42 * rate_hz, frequencies > 0.52 * rate_hz
    assert np.sum(after[kept] ** 2) == pytest.approx(np.sum(before[kept] ** 2), rel=0.02)
    assert np.sum(after[removed] ** 2) < 1e-4 * np.sum(before[removed] ** 2)


def test_a_rate_that_is_not_lower_changes_nothing():
    noise = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    assert LowRate(32000).apply(noise, 32000) is noise
