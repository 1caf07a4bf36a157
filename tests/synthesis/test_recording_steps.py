from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import signal

from rfkeras.synthesis.filters import Band
from rfkeras.synthesis.recording_steps import (
    Clipping,
    Compressor,
    Equaliser,
    Hum,
    Level,
    Limiter,
    Noise,
    Room,
    Tape,
    Wobble,
)

RATE_HZ = 44100
SAMPLES = 4 * RATE_HZ
SECONDS = np.arange(SAMPLES) / RATE_HZ


def tone(pitch_hz: float, amplitude: float = 0.1) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * pitch_hz * SECONDS)).astype(np.float32)


def decibels(value: np.ndarray) -> float:
    """Return the RMS in decibels relative to full scale."""
    return float(10 * np.log10(np.mean(np.square(value, dtype=np.float64))))


ROOM = Room(rt60_s=0.8, size_m=6.0, wet_db=-6.0, early=0.4, bass=1.3, treble=0.6, seed=1)


def decay_time(response: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Measure RT60 from the decay from -5 to -25 dB, after Schroeder (ISO 3382)."""
    sections = signal.butter(4, (low_hz, high_hz), "bandpass", fs=RATE_HZ, output="sos")
    energy = signal.sosfiltfilt(sections, response) ** 2
    left = 10 * np.log10(np.cumsum(energy[::-1])[::-1] / energy.sum() + 1e-15)
    first, last = np.argmax(left < -5), np.argmax(left < -25)
    slope = np.polyfit(np.arange(first, last) / RATE_HZ, left[first:last], 1)[0]
    return float(-60 / slope)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("rt60_s", "size_m"), [(0.25, 3.0), (0.8, 6.0), (2.0, 20.0)])
def test_the_reverberation_decays_in_the_drawn_time_by_band(rt60_s, size_m, seed):
    room = dataclasses.replace(ROOM, rt60_s=rt60_s, size_m=size_m, seed=seed)
    reverberation = room.impulse_response(RATE_HZ)
    reverberation[0] -= 1
    assert decay_time(reverberation, 400, 1600) == pytest.approx(rt60_s, rel=0.15)
    assert decay_time(reverberation, 2500, 5000) == pytest.approx(0.6 * rt60_s, rel=0.2)
    if rt60_s > 0.5:
        assert decay_time(reverberation, 80, 200) == pytest.approx(1.3 * rt60_s, rel=0.2)


def test_the_direct_sound_stays_and_the_reverberation_has_its_energy():
    response = ROOM.impulse_response(RATE_HZ)
    assert response[0] == 1
    energy = float((response[1:].astype(np.float64) ** 2).sum())
    assert 10 * np.log10(energy) == pytest.approx(-6, abs=0.5)


def test_early_reflections_arrive_one_by_one_before_the_tail():
    response = ROOM.impulse_response(RATE_HZ)
    tail_starts = int(6.0 / 343 * RATE_HZ)
    early = np.flatnonzero(response[1:tail_starts]) + 1
    # The nearest wall of a room of 6 m by 3 to 5 m by 2 to 3 m is less than 1.5 m away.
    assert early[0] / RATE_HZ * 343 < 3
    assert 5 <= len(early) <= 124
    assert (response[early] > 0).all()


def test_the_response_is_added_to_the_music_at_its_time():
    music = np.zeros(RATE_HZ, np.float32)
    music[1000] = 0.5
    played = ROOM.apply(music, RATE_HZ)
    response = ROOM.impulse_response(RATE_HZ)[: RATE_HZ - 1000]
    assert played.shape == music.shape
    np.testing.assert_allclose(played[1000 : 1000 + len(response)], 0.5 * response, atol=1e-6)
    np.testing.assert_allclose(played[:1000], 0, atol=1e-6)


def test_the_seed_decides_the_room():
    first, again = ROOM.impulse_response(RATE_HZ), ROOM.impulse_response(RATE_HZ)
    np.testing.assert_array_equal(first, again)
    other = dataclasses.replace(ROOM, seed=2).impulse_response(RATE_HZ)
    assert np.corrcoef(first[1:20000], other[1:20000])[0, 1] < 0.3


@pytest.mark.parametrize(
    ("colour", "slope"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)]
)
@pytest.mark.parametrize("snr_db", [12.0, 40.0])
def test_noise_has_its_level_and_its_slope(colour, slope, snr_db):
    music = tone(440.0)
    noise = Noise(colour, snr_db, seed=5).apply(music, RATE_HZ) - music
    assert decibels(music) - decibels(noise) == pytest.approx(snr_db, abs=0.05)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)
    octaves = np.arange(6, 14)
    levels = [
        10 * np.log10(power[(frequencies >= 2.0**n) & (frequencies < 2.0 ** (n + 1))].mean())
        for n in octaves
    ]
    assert np.polyfit(octaves, levels, 1)[0] == pytest.approx(slope, abs=0.25)


def test_noise_depends_on_its_seed_only():
    music = tone(440.0)
    first, again, other = (
        Noise("pink", 20.0, seed).apply(music, RATE_HZ) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first - music, other - music)[0, 1]) < 0.05


@pytest.mark.parametrize("frequency_hz", [50, 60])
def test_hum_has_its_level_and_harmonics(frequency_hz):
    music = tone(1234.0)
    harmonics = (1.0, 0.2, 0.5)
    hum = Hum(frequency_hz, 30.0, harmonics, phase=1.0).apply(music, RATE_HZ) - music
    assert decibels(music) - decibels(hum) == pytest.approx(30, abs=0.05)
    amplitudes = np.abs(np.fft.rfft(hum))
    frequencies = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)
    loudest = np.sort(frequencies[np.argsort(amplitudes)[-3:]])
    np.testing.assert_allclose(loudest, frequency_hz * np.array([1, 2, 3]))
    peaks = amplitudes[np.searchsorted(frequencies, loudest)]
    np.testing.assert_allclose(peaks / peaks[0], harmonics, rtol=1e-3)


def test_a_silent_room_has_noise_and_hum_of_an_absolute_level():
    silence = np.zeros(SAMPLES, np.float32)
    assert decibels(Noise("white", 20.0, 0).apply(silence, RATE_HZ)) == pytest.approx(-80)
    hum = Hum(50, 10.0, (1.0,), 0.0).apply(silence, RATE_HZ)
    assert decibels(hum) == pytest.approx(-70, abs=0.01)


def test_an_equaliser_has_its_gain_at_the_centre():
    for gain_db in (-12.0, 4.0, 12.0):
        equaliser = Equaliser((Band("peak", 1000.0, gain_db, q=1.0),))
        filtered = equaliser.apply(tone(1000.0), RATE_HZ)[RATE_HZ:]
        assert decibels(filtered) - decibels(tone(1000.0)) == pytest.approx(gain_db, abs=0.1)


@pytest.mark.parametrize("ratio", [2.0, 4.0, 10.0])
def test_a_compressor_reduces_the_range_by_its_ratio(ratio):
    """Both levels are above the threshold: 20 dB become 20 / ratio."""
    music = tone(440.0, 0.5)
    music[SAMPLES // 2 :] *= 0.1
    threshold_db = -25.0
    pressed = Compressor(threshold_db, ratio, 5.0, 50.0).apply(music, RATE_HZ)
    loud, soft = pressed[RATE_HZ : SAMPLES // 2], pressed[3 * RATE_HZ :]
    assert decibels(loud) - decibels(soft) == pytest.approx(20 / ratio, abs=0.3)
    threshold = decibels(music) + threshold_db
    expected = threshold + (decibels(tone(440.0, 0.5)) - threshold) / ratio
    # A fast attack follows the ripples of the tone upwards.
    assert decibels(loud) == pytest.approx(expected, abs=0.5)


def test_a_compressor_leaves_what_is_below_its_threshold():
    music = tone(440.0)
    np.testing.assert_allclose(Compressor(4.0, 8.0, 5.0, 50.0).apply(music, RATE_HZ), music)


def test_a_compressor_needs_its_attack_and_release():
    music = tone(3000.0, 0.01)
    middle = slice(RATE_HZ, 2 * RATE_HZ)
    music[middle] *= 50
    pressed = Compressor(-40.0, 4.0, attack_ms=20.0, release_ms=200.0).apply(music, RATE_HZ)

    def level(seconds: float) -> float:
        start = int(seconds * RATE_HZ)
        return decibels(pressed[start : start + 441])

    gain_change = level(1.001) - level(1.9)
    assert level(1.02) - level(1.9) == pytest.approx(gain_change * np.exp(-1), abs=2)
    recovery = level(2.95) - level(2.001)
    assert level(2.95) - level(2.2) == pytest.approx(recovery * np.exp(-1), abs=2)


def test_a_limiter_holds_its_ceiling_without_bending():
    music = tone(440.0, 0.1)
    music[RATE_HZ : RATE_HZ + 4410] *= 8
    limited = Limiter(reduction_db=6.0, release_ms=50.0).apply(music, RATE_HZ)
    ceiling = np.abs(music).max() * 10 ** (-6 / 20)
    assert np.abs(limited).max() <= ceiling * (1 + 1e-6)
    assert np.abs(limited).max() == pytest.approx(ceiling, rel=0.01)
    np.testing.assert_allclose(limited[: RATE_HZ // 2], music[: RATE_HZ // 2])
    amplitudes = np.abs(np.fft.rfft(limited[RATE_HZ + 441 : RATE_HZ + 3969] * np.hanning(3528)))
    assert amplitudes[3 * 440 * 3528 // RATE_HZ] < 1e-3 * amplitudes.max()


def test_soft_clipping_bends_and_hard_clipping_cuts():
    music = tone(440.0, 0.5)
    soft = Clipping("soft", 6.0).apply(music, RATE_HZ)
    hard = Clipping("hard", 6.0).apply(music, RATE_HZ)
    limit = 0.5 * 10 ** (-6 / 20)
    assert np.abs(hard).max() == pytest.approx(limit, rel=1e-6)
    kept = np.abs(music) < limit
    np.testing.assert_allclose(hard[kept], music[kept], rtol=1e-5)
    assert np.mean(np.abs(hard) > 0.999 * limit) == pytest.approx(2 / 3, abs=0.01)
    np.testing.assert_allclose(soft, limit * np.tanh(music / limit), rtol=1e-4)


def test_a_tape_detunes_and_keeps_the_middle():
    for cents in (-25.0, 25.0):
        played = Tape(cents, ()).apply(tone(1000.0), RATE_HZ)
        pitch_hz = measured_pitch(played)[len(played) // 4 : -len(played) // 4]
        assert 1200 * np.log2(pitch_hz.mean() / 1000) == pytest.approx(cents, abs=0.5)
    click = np.zeros(SAMPLES, np.float32)
    click[SAMPLES // 2] = 1
    assert abs(int(np.argmax(Tape(25.0, ()).apply(click, RATE_HZ))) - SAMPLES // 2) <= 1


def test_wow_changes_the_pitch_at_its_frequency_and_depth():
    played = Tape(0.0, (Wobble(12.0, 2.0, 0.0),)).apply(tone(1000.0), RATE_HZ)
    cents = 1200 * np.log2(measured_pitch(played)[RATE_HZ // 2 : -RATE_HZ // 2] / 1000)
    assert cents.max() == pytest.approx(12, abs=0.5)
    assert cents.min() == pytest.approx(-12, abs=0.5)
    amplitudes = np.abs(np.fft.rfft(cents - cents.mean()))
    assert np.argmax(amplitudes) / (len(cents) / RATE_HZ) == pytest.approx(2, abs=0.34)


def test_tape_keeps_treble():
    for pitch_hz in (5000.0, 12000.0):
        played = Tape(10.0, ()).apply(tone(pitch_hz), RATE_HZ)
        assert decibels(played) - decibels(tone(pitch_hz)) == pytest.approx(0, abs=0.5)


def measured_pitch(samples: np.ndarray) -> np.ndarray:
    """Return the frequency of a tone at each time, smoothed over 40 ms."""
    size = len(samples)
    spectrum = np.fft.fft(samples)
    spectrum[size // 2 :] = 0
    phase = np.unwrap(np.angle(np.fft.ifft(spectrum)))
    window = 1764
    return (phase[window:] - phase[:-window]) / window * RATE_HZ / (2 * np.pi)


def test_the_level_is_that_of_the_peak():
    for peak_db in (-40.0, -12.5, 0.0):
        played = Level(peak_db).apply(tone(440.0), RATE_HZ)
        assert 20 * np.log10(np.abs(played).max()) == pytest.approx(peak_db, abs=1e-4)


STEPS = (
    Noise("brown", 20.0, 0),
    Hum(60, 30.0, (1.0, 0.5), 0.0),
    Equaliser((Band("low_shelf", 200.0, 12.0),)),
    Compressor(-10.0, 4.0, 5.0, 100.0),
    Limiter(6.0, 50.0),
    Clipping("soft", 6.0),
    Clipping("hard", 3.0),
    Tape(20.0, (Wobble(5.0, 1.0, 0.0),)),
    Level(-3.0),
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_silence_a_constant_and_a_few_samples_are_finite(step):
    for samples in (np.zeros(5000), np.full(5000, 0.3), np.ones(1), np.array([0.1, -0.1, 0.2])):
        waveform = samples.astype(np.float32)
        before = waveform.copy()
        played = step.apply(waveform, RATE_HZ)
        assert played.shape == samples.shape
        assert np.isfinite(played).all()
        np.testing.assert_array_equal(waveform, before)
