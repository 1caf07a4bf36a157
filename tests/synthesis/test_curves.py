"""Curves of pitch and level: MIDI events, and samples that follow them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rfkeras.synthesis.arrange import Casting
from rfkeras.synthesis.compose import Part
from rfkeras.synthesis.curves import (
    Expression,
    apply_bend,
    apply_level,
    bend_events,
    expression_events,
    value_at,
)
from rfkeras.synthesis.mapping import INSTRUMENTS
from rfkeras.synthesis.render import SoundFont, render_stem
from rfkeras.synthesis.song import Note

NONE = np.zeros((0, 2))


def test_values_are_linear_between_points_and_constant_outside() -> None:
    curve = np.array([(1.0, 0.0), (2.0, 100.0)])
    times = np.array([0.0, 1.25, 2.0, 9.0])
    assert value_at(curve, times).tolist() == [0, 25, 100, 100]
    assert value_at(NONE, times).tolist() == [0, 0, 0, 0]


def test_wheel_and_expression_values() -> None:
    bend = np.array([(0.0, 0.0), (1.0, 0.0), (1.5, 100.0), (2.0, -300.0)])
    events = bend_events(bend, 10.0, (0.0, 3.0))
    assert events[0] == (0.0, round(8192 * 10 / 200))
    assert dict(events)[1.5] == round(8192 * 110 / 200)
    assert events[-1][1] == -8192
    assert [time for time, _ in events[1:]] == sorted(time for time, _ in events[1:])
    assert not [time for time, _ in events if 0 < time < 1]
    assert bend_events(np.zeros((0, 2)), 0.0, (-1.0, 3.0)) == [(-1.0, 0)]
    level = np.array([(0.0, 0.0), (1.0, -12.0)])
    values = expression_events(level, (0.0, 1.0 + 1e-9))
    assert (values[0], values[-1][1]) == ((0.0, 127), round(127 * 10 ** (-12 / 40)))


def _played(font: SoundFont, bend: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Render a note (A4, flute) of 3 s with both curves, 48 kHz mono."""
    notes = (Note(0.0, 3.0, 69, 90),)
    casting = Casting(INSTRUMENTS["flute"], 73, "melody", 60, 84)
    part = Part(casting, notes, level_db=0, reverb=0, vibrato=0, heard=True)
    return render_stem(part, 0, 0.0, font, expression=Expression(notes, bend, level))


def _pitch_cents(samples: np.ndarray) -> float:
    """Return the pitch in cents above A4."""
    windowed = samples * np.hanning(len(samples))
    power = np.abs(np.fft.rfft(windowed, 8 * len(samples)))
    hz = np.fft.rfftfreq(8 * len(samples), 1 / 48000)
    near = (hz > 330) & (hz < 600)
    return 1200 * math.log2(hz[near][power[near].argmax()] / 440)


def test_sound_fonts_play_the_curves(font: SoundFont) -> None:
    bend = np.array([(0.0, 0.0), (1.4, 0.0), (1.5, 200.0)])
    level = np.array([(0.0, 0.0), (2.0, 0.0), (2.1, -12.0)])
    flat = _played(font, np.zeros((0, 2)), np.zeros((0, 2)))
    played = _played(font, bend, level)
    before, after = slice(38400, 62400), slice(76800, 96000)
    assert _pitch_cents(played[before]) - _pitch_cents(flat[before]) == pytest.approx(0, abs=5)
    assert _pitch_cents(played[after]) - _pitch_cents(flat[after]) == pytest.approx(200, abs=8)

    def level_db(samples: np.ndarray) -> float:
        return 10 * math.log10(np.mean(samples[105600:139200] ** 2))

    assert level_db(played) - level_db(flat) == pytest.approx(-12, abs=1.5)


def _tone(hz: float, seconds: float = 3.0) -> np.ndarray:
    time = np.arange(int(48000 * seconds)) / 48000
    return (0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def test_samples_are_bent_by_the_curve() -> None:
    bend = np.array([(5.0, 0.0), (6.0, 0.0), (6.1, 200.0), (7.4, 200.0), (7.5, -150.0)])
    played = apply_bend(_tone(440), bend, 48000, 5.0)
    assert len(played) == 3 * 48000
    assert np.abs(played[:48000] - _tone(440)[:48000]).max() < 1e-6
    assert _pitch_cents(played[54000:110000]) == pytest.approx(200, abs=1)
    assert _pitch_cents(played[124000:140000]) == pytest.approx(-150, abs=2)
    # The interpolation is accurate: 65 dB below the tone, and no step where the bend starts.
    steady = played[54000 : 54000 + 48000].astype(np.float64)
    time = np.arange(48000) / 48000
    hz = 440 * 2 ** (200 / 1200)
    basis = np.stack([np.sin(2 * np.pi * hz * time), np.cos(2 * np.pi * hz * time)], axis=1)
    error = steady - basis @ np.linalg.lstsq(basis, steady, rcond=None)[0]
    assert 10 * math.log10(np.mean(error**2) / np.mean(steady**2)) < -65
    assert np.abs(np.diff(played)).max() < 0.5 * 2 * np.pi * hz / 48000 * 1.01


def test_samples_that_lack_are_silence() -> None:
    bend = np.array([(0.0, 200.0)])
    played = apply_bend(_tone(440, 1.0), bend, 48000, 0.0)
    last = int(48000 / 2 ** (200 / 1200))
    assert np.abs(played[last - 100 : last - 4]).max() > 0.45
    assert np.abs(played[last + 4 :]).max() == 0
    tone = _tone(440, 0.1)
    assert apply_bend(tone, NONE, 48000, 0.0) is tone
    assert apply_bend(tone, np.array([(0.0, 0.0)]), 48000, 0.0) is tone
    assert len(apply_bend(tone[:0], bend, 48000, 0.0)) == 0


def test_samples_follow_the_level() -> None:
    level = np.array([(1.0, 0.0), (2.0, -12.0)])
    ones = np.ones(3 * 100, np.float32)
    played = 20 * np.log10(apply_level(ones, level, 100, 0.0))
    assert played[[0, 100, 150, 200, 299]] == pytest.approx([0, 0, -6, -12, -12], abs=1e-4)
    assert apply_level(ones, NONE, 100, 0.0) is ones
