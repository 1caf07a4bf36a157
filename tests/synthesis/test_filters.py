from __future__ import annotations

import json
import random

import numpy as np
import pytest

from rfkeras.synthesis.filters import (
    KINDS,
    AmplifierKind,
    Band,
    draw_amplifier,
    filter_bands,
    steep,
)

RATE_HZ = 44100


def gain_db(bands: tuple[Band, ...], frequency_hz: float) -> float:
    """Measure the gain of filters at a frequency, from their response to an impulse."""
    impulse = np.zeros(RATE_HZ, np.float32)
    impulse[0] = 1
    response = filter_bands(impulse, bands, RATE_HZ)
    wave = np.exp(-2j * np.pi * frequency_hz / RATE_HZ * np.arange(RATE_HZ))
    return float(20 * np.log10(np.abs((response * wave).sum()) + 1e-12))


@pytest.mark.parametrize("gain", [-12, -5, 6, 12])
@pytest.mark.parametrize("frequency_hz", [100.0, 1000.0, 8000.0])
def test_a_peak_has_its_gain_at_its_centre_and_none_far_away(gain, frequency_hz):
    bands = (Band("peak", frequency_hz, gain, q=2.0),)
    assert gain_db(bands, frequency_hz) == pytest.approx(gain, abs=0.05)
    assert gain_db(bands, 1.0) == pytest.approx(0, abs=0.1)
    if frequency_hz < 5000:  # the bandwidth of higher ones is smaller
        edge_hz = frequency_hz * (np.sqrt(1 + 1 / 16) - 1 / 4)
        assert gain_db(bands, edge_hz) == pytest.approx(gain / 2, abs=0.5)


@pytest.mark.parametrize("gain", [-12, 9])
@pytest.mark.parametrize(
    ("kind", "inside_hz", "outside_hz"),
    [("low_shelf", 20.0, 15000.0), ("high_shelf", 19000.0, 50.0)],
)
def test_a_shelf_has_its_gain_on_one_side_and_half_of_it_at_its_frequency(
    kind, inside_hz, outside_hz, gain
):
    bands = (Band(kind, 1000.0, gain),)
    assert gain_db(bands, inside_hz) == pytest.approx(gain, abs=0.2)
    assert gain_db(bands, 1000.0) == pytest.approx(gain / 2, abs=0.05)
    assert gain_db(bands, outside_hz) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize(
    ("kind", "octave_out_hz", "inside_hz"),
    [("high_pass", 500.0, 8000.0), ("low_pass", 2000.0, 100.0)],
)
def test_a_steep_filter_falls_by_24_db_an_octave(kind, octave_out_hz, inside_hz):
    bands = steep(kind, 1000.0)
    assert gain_db(bands, 1000.0) == pytest.approx(-3, abs=0.1)
    assert gain_db(bands, octave_out_hz) == pytest.approx(-24.1, abs=0.6)
    assert gain_db(bands, inside_hz) == pytest.approx(0, abs=0.1)


def test_a_frequency_above_half_the_rate_is_lowered():
    impulse = np.eye(1, 100)[0]
    high, highest = (
        filter_bands(impulse, [Band("peak", frequency_hz, 6.0)], 8000)
        for frequency_hz in (10000.0, 3600.0)
    )
    np.testing.assert_array_equal(high, highest)


# Amplifiers of electric guitars

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
