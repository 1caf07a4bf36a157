from __future__ import annotations

import numpy as np
import pytest
import soundfile

from rfkeras.errors import AudioError
from rfkeras.synthesis.recorded_sound import Sound, SoundCache, estimate_pitch, read_sound
from tests.helpers.recorded_notes import RATE_HZ, tone


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(69, seconds=1.0, silence_s=0.3), RATE_HZ)
    return path


def steepest(samples):
    return float(np.abs(np.diff(samples)).max())


def levels_db(samples, length):
    frames = samples[: len(samples) // length * length].reshape(-1, length)
    return 10 * np.log10(np.mean(frames**2, axis=1))


def test_silence_in_front_is_cut(file):
    sound = read_sound(file)
    assert (sound.rate_hz, sound.preroll) == (RATE_HZ, 32)
    assert not sound.samples[:32].any()
    assert abs(sound.samples[32]) == pytest.approx(0.5, abs=1e-3)
    assert len(sound.samples) == RATE_HZ + 32


def test_a_sound_that_starts_at_once_gets_a_preroll(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(69, silence_s=0), RATE_HZ)
    sound = read_sound(path)
    assert len(sound.samples) == RATE_HZ + sound.preroll
    assert abs(sound.samples[sound.preroll]) == pytest.approx(0.5, abs=1e-3)


def test_stereo_above_48_khz_becomes_mono_at_48_khz(tmp_path):
    path = tmp_path / "tone.wav"
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(96000) / 96000)
    soundfile.write(path, np.stack([wave, 0.5 * wave], axis=1), 96000)
    sound = read_sound(path)
    assert sound.rate_hz == 48000
    assert sound.peak == pytest.approx(0.375, rel=1e-2)


def test_silent_file_is_rejected(tmp_path):
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(1000), RATE_HZ)
    with pytest.raises(AudioError, match="silent"):
        read_sound(path)


def test_loudness_is_the_amplitude_of_a_sine_and_not_of_a_click():
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
    samples[100] = 1.0
    sound = Sound(samples.astype(np.float32), RATE_HZ, 0)
    assert sound.peak == 1.0
    assert sound.loudness == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("pitch", [28.3, 35.1, 40.4, 47.6, 55.9, 69.2, 90.7])
def test_a_held_tone_has_no_seams(pitch):
    sound = Sound(tone(pitch, seconds=1.3, silence_s=0), RATE_HZ, 0)
    held = sound.held(5 * RATE_HZ)
    assert len(held) == 5 * RATE_HZ
    assert np.array_equal(held[: RATE_HZ // 2], sound.samples[: RATE_HZ // 2])
    assert steepest(held) <= 1.03 * steepest(sound.samples)
    # Frames shorter than the crossfade show a dip in it.
    levels = levels_db(held, RATE_HZ // 20)
    assert np.ptp(levels) < 0.8


def test_held_noise_keeps_its_level():
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    levels = levels_db(Sound(noise, RATE_HZ, 0).held(8 * RATE_HZ), RATE_HZ // 20)
    assert np.ptp(levels) < 1.5


def test_a_decaying_tone_goes_on_decaying():
    sound = Sound(tone(60, seconds=1.5, silence_s=0, decay_s=1.5), RATE_HZ, 0)
    levels = levels_db(sound.held(5 * RATE_HZ), RATE_HZ // 4)
    assert np.all(np.diff(levels) < 0.2)
    assert levels[-1] < levels[0] - 12


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.4])
def test_a_sound_without_steady_part_ends(seconds):
    sound = Sound(tone(60, seconds=seconds, silence_s=0), RATE_HZ, 0)
    assert sound.loop is None
    assert len(sound.held(2 * RATE_HZ)) == len(sound.samples)


@pytest.mark.parametrize("pitch", [24.4, 45.0, 69.7, 100.2])
def test_estimated_pitch(pitch):
    wave = sum(tone(pitch + 12 * np.log2(n), silence_s=0) / n for n in range(1, 5))
    assert estimate_pitch(Sound(wave, RATE_HZ, 0)) == pytest.approx(pitch, abs=0.03)


def test_no_pitch_is_estimated_for_noise_chords_slides_and_short_sounds():
    noise = np.random.default_rng(0).normal(0, 0.1, RATE_HZ).astype(np.float32)
    chord = sum(tone(pitch, silence_s=0) for pitch in (60, 61, 66, 71))
    step = np.concatenate([tone(60, 0.23, 0), tone(62, 0.5, 0)])
    for samples in (noise, chord, step, tone(60, 0.2, 0)):
        assert estimate_pitch(Sound(samples, RATE_HZ, 0)) is None


def test_cache_decodes_once_and_stays_below_its_limit(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for path in paths:
        soundfile.write(path, tone(60, seconds=0.1, silence_s=0), RATE_HZ)
    size = read_sound(paths[0]).samples.nbytes
    decoded = []

    def counted(path):
        decoded.append(path)
        return read_sound(path)

    monkeypatch.setattr("rfkeras.synthesis.recorded_sound.read_sound", counted)
    cache = SoundCache(max_bytes=2 * size)
    for number in (0, 1, 0, 0, 2, 0, 1):
        cache.read(paths[number])
    # 2 replaces 1, the least recently used, which is decoded again at the end.
    assert decoded == [paths[0], paths[1], paths[2], paths[1]]
    assert len(cache) == 2


def test_a_sound_larger_than_the_cache_is_not_kept(file):
    cache = SoundCache(max_bytes=1000)
    assert len(cache.read(file).samples) > 1000
    assert len(cache) == 0
