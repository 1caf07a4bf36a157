from __future__ import annotations

import random

import numpy as np
import pytest
import soundfile

from rfkeras.synthesis import ensemble_clips
from rfkeras.synthesis.ensemble_clips import KINDS, draw_negative

RATE = 44100
SAMPLES = 4 * RATE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate_hz", [16000, RATE])
def test_kinds_are_finite_and_a_function_of_the_seed(kind, rate_hz):
    def made(seed):
        return KINDS[kind](np.random.default_rng(seed), 2 * rate_hz, rate_hz)

    first, other = made(0), made(1)
    assert first.shape == (2 * rate_hz,)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, made(0))
    assert np.array_equal(first, other) == (kind == "silence")


def test_birds_are_high_and_engines_low():
    def share_above(kind, hertz):
        samples = KINDS[kind](np.random.default_rng(3), SAMPLES, RATE)
        power = np.abs(np.fft.rfft(samples)) ** 2
        return power[np.fft.rfftfreq(SAMPLES, 1 / RATE) > hertz].sum() / power.sum()

    assert share_above("birds", 1000) > 0.9
    assert share_above("engine", 3000) < 0.3


def test_every_kind_is_drawn_at_the_same_peak():
    drawn = [draw_negative(random.Random(seed), (), RATE, RATE) for seed in range(40)]
    assert {kind for _, kind in drawn} == set(KINDS)
    for samples, kind in drawn:
        assert samples.dtype == np.float32
        peak = np.abs(samples).max()
        assert peak == pytest.approx(0.0 if kind == "silence" else 0.5, abs=1e-6)


def test_files_are_cut_and_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble_clips, "FILE_RATE", 1.0)
    ramp = np.linspace(-0.25, 0.25, RATE)
    soundfile.write(tmp_path / "short.wav", ramp[: RATE // 2], RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", ramp, RATE, subtype="FLOAT")
    count = 3 * RATE // 4
    samples, name = draw_negative(random.Random(0), [tmp_path / "short.wav"], count, RATE)
    assert name == "short.wav"
    np.testing.assert_allclose(samples[: RATE // 4], samples[RATE // 2 : count], atol=1e-6)
    starts = set()
    for seed in range(4):
        cut, _ = draw_negative(random.Random(seed), [tmp_path / "long.wav"], count, RATE)
        starts.add(round(float(cut[0] / np.ptp(cut)), 3))
    assert len(starts) == 4
    samples, _ = draw_negative(random.Random(1), [tmp_path / "long.wav"], count, RATE)
    # An excerpt in one piece, of another place than the beginning.
    assert np.all(np.diff(samples) > 0)
    start = np.interp(
        samples[0] / samples[-1], ramp[:100] / ramp[count : count + 100], range(100)
    )
    assert np.isfinite(start)
