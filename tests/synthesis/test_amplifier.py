from __future__ import annotations

import json
import random

import numpy as np
import pytest

from rfkeras.synthesis.amplifier import KINDS, AmplifierKind, draw_amplifier

RATE_HZ = 44100
SECONDS = np.arange(RATE_HZ // 2) / RATE_HZ


def tone(pitch_hz: float, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * pitch_hz * SECONDS)).astype(np.float32)


def spectrum(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies and amplitudes of the steady middle."""
    middle = samples[2205:-2205]
    amplitudes = np.abs(np.fft.rfft(middle * np.blackman(len(middle))))
    return np.fft.rfftfreq(len(middle), 1 / RATE_HZ), amplitudes


def overtones(samples: np.ndarray, pitch_hz: float) -> np.ndarray:
    """Return the amplitudes of 19 overtones relative to the fundamental."""
    frequencies, amplitudes = spectrum(samples)
    peaks = np.array(
        [
            amplitudes[np.abs(frequencies - number * pitch_hz) < 15].max()
            for number in range(1, 21)
        ]
    )
    return peaks[1:] / peaks[0]


def distortion(kind: AmplifierKind, amplitudes: tuple[float, float]) -> list[float]:
    """Return the total harmonic distortion of a loud and a soft note of one guitar track."""
    totals = []
    for seed in range(6):
        amplifier = draw_amplifier(random.Random(seed), kind)
        track = np.concatenate([tone(220.0, amplitude) for amplitude in amplitudes])
        bent = amplifier.bend(track, RATE_HZ).reshape(2, -1)
        totals.append([np.sqrt((overtones(note, 220.0) ** 2).sum()) for note in bent])
    return [float(value) for value in np.mean(totals, axis=0)]


def test_the_kinds_distort_more_and_more_and_differ_in_soft_notes():
    found = {kind: distortion(kind, (0.5, 0.05)) for kind in KINDS}
    loud, soft = ([pair[i] for pair in found.values()] for i in (0, 1))
    assert loud == sorted(loud)
    assert soft == sorted(soft)
    clean, crunch, distorted, fuzz = found.values()
    assert clean[0] < 0.04
    assert crunch[0] > 0.12
    assert crunch[1] < 0.1 < distorted[1]  # a soft touch cleans a crunchy sound only
    assert fuzz[1] > 0.25


def test_asymmetric_tubes_make_even_overtones():
    even = {}
    for kind in ("clean", "fuzz"):
        bent = draw_amplifier(random.Random(0), kind).bend(tone(220.0), RATE_HZ)
        even[kind] = overtones(bent, 220.0)[0]
    assert even["clean"] < 0.03
    assert even["fuzz"] > 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pitch_hz", [440.0, 1245.3])
def test_overtones_do_not_fold_back(kind, pitch_hz):
    for seed in range(4):
        bent = draw_amplifier(random.Random(seed), kind).bend(tone(pitch_hz), RATE_HZ)
        frequencies, amplitudes = spectrum(bent)
        distances = np.abs(frequencies - np.rint(frequencies / pitch_hz) * pitch_hz)
        folded = amplitudes[(distances > 15) & (frequencies > 30)].max()
        assert 20 * np.log10(folded / amplitudes.max()) < -60


def test_the_loudspeaker_cuts_treble_and_constant_and_the_level_stays():
    guitar = sum(tone(pitch, 0.05) for pitch in (110.0, 138.6, 164.8))
    for kind in KINDS:
        for seed in range(4):
            amplifier = draw_amplifier(random.Random(seed), kind)
            played = amplifier.apply(guitar, RATE_HZ)
            assert played.dtype == np.float32
            assert played.shape == guitar.shape
            assert np.std(played) == pytest.approx(np.std(guitar), rel=0.01)
            frequencies, amplitudes = spectrum(played)
            treble = amplitudes[frequencies > 12000].max() / amplitudes.max()
            assert 20 * np.log10(treble) < -40
            assert abs(played[4410:].mean()) < 0.01 * np.std(played)


def test_notes_keep_their_time():
    guitar = np.zeros(RATE_HZ // 2, np.float32)
    guitar[10000:] = tone(330.0)[:-10000]
    for kind in KINDS:
        played = draw_amplifier(random.Random(1), kind).apply(guitar, RATE_HZ)
        onset = np.argmax(np.abs(played) > 0.3 * np.abs(played).max())
        assert 9990 < onset < 10000 + 0.003 * RATE_HZ


def test_the_level_of_the_track_does_not_change_the_sound():
    for kind in KINDS:
        amplifier = draw_amplifier(random.Random(1), kind)
        loud, soft = (amplifier.apply(tone(220.0, level), RATE_HZ) for level in (0.5, 0.005))
        np.testing.assert_allclose(loud, 100 * soft, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_a_constant_and_a_few_samples_are_finite(kind):
    amplifier = draw_amplifier(random.Random(0), kind)
    assert not amplifier.apply(np.zeros(1000, np.float32), RATE_HZ).any()
    for samples in (np.full(RATE_HZ, 0.5), np.ones(1), np.full(5, 1e-20), np.ones(0)):
        played = amplifier.apply(samples.astype(np.float32), RATE_HZ)
        assert played.shape == samples.shape
        assert np.isfinite(played).all()


def test_the_random_numbers_decide_the_amplifier():
    assert draw_amplifier(random.Random(3)) == draw_amplifier(random.Random(3))
    assert {draw_amplifier(random.Random(seed)).kind for seed in range(40)} == set(KINDS)
    amplifier = draw_amplifier(random.Random(0), "fuzz")
    written = json.loads(amplifier.to_json())
    assert written["kind"] == "fuzz"
    assert written["drive_db"] == amplifier.drive_db
    assert written["loudspeaker"][0]["frequency_hz"] == amplifier.loudspeaker[0].frequency_hz


def test_an_unknown_kind_and_stereo_are_rejected():
    with pytest.raises(ValueError, match="clean, crunch, distorted, fuzz, or None.*'loud'"):
        draw_amplifier(random.Random(0), "loud")
    with pytest.raises(ValueError, match=r"mono.*\(2, 100\)"):
        draw_amplifier(random.Random(0)).apply(np.ones((2, 100), np.float32), RATE_HZ)
