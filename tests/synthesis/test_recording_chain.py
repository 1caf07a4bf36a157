from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rfkeras.synthesis.coding import Coding, LowRate
from rfkeras.synthesis.filters import Band
from rfkeras.synthesis.recording_chain import (
    CLEAN_RATE,
    STEP_RATES,
    Chain,
    draw_chain,
)
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
EVERY_STEP = Chain(
    (
        Room(0.4, 5.0, -10.0, 0.4, 1.2, 0.7, seed=1),
        Noise("pink", 30.0, seed=2),
        Hum(50, 40.0, (1.0, 0.3), 0.5),
        Equaliser((Band("peak", 1000.0, 3.0), Band("low_pass", 9000.0))),
        Compressor(-10.0, 3.0, 10.0, 200.0),
        Limiter(3.0, 30.0),
        Clipping("soft", 0.0),
        Tape(0.0, (Wobble(1.0, 1.0, 0.0),)),
        LowRate(22050),
        Coding("mp3", 64000, 44100),
        Coding("aac", 64000, 44100),
        Coding("opus", 48000, 48000),
        Coding("vorbis", None, 32000),
        Level(-3.0),
    )
)


def music(samples: int = RATE_HZ) -> np.ndarray:
    rng = np.random.default_rng(0)
    seconds = np.arange(samples) / RATE_HZ
    decay = np.exp(-8 * (seconds % 0.25))
    tones = np.sin(2 * np.pi * 220 * seconds) + np.sin(2 * np.pi * 554.4 * seconds)
    return (decay * (0.1 * tones + 0.02 * rng.standard_normal(samples))).astype(np.float32)


@pytest.fixture(scope="module")
def chains() -> list[Chain]:
    return [draw_chain(random.Random(seed)) for seed in range(4000)]


def test_the_steps_occur_as_often_as_they_should(chains):
    clean = sum(not chain.steps for chain in chains) / len(chains)
    assert clean == pytest.approx(CLEAN_RATE, abs=0.02)
    counts = Counter(type(step).__name__ for chain in chains for step in chain.steps)
    rates = {name.title().replace("_", ""): rate for name, rate in STEP_RATES.items()}
    assert counts.keys() == rates.keys() | {"Level"}
    for name, rate in rates.items():
        assert counts[name] / len(chains) == pytest.approx((1 - clean) * rate, abs=0.025), name


def test_the_numbers_cover_their_ranges(chains):
    steps = [step for chain in chains for step in chain.steps]

    def values(kind: type, name: str) -> np.ndarray:
        return np.array([getattr(step, name) for step in steps if isinstance(step, kind)])

    peaks = values(Level, "peak_db")
    assert -40 <= peaks.min() < -39 < -1 < peaks.max() <= 0
    assert np.median(peaks) == pytest.approx(-20, abs=1.5)
    rooms = values(Room, "rt60_s")
    assert 0.15 < rooms.min() < 0.25 < 1.5 < rooms.max() <= 2.5
    equalisers = [step for step in steps if isinstance(step, Equaliser)]
    gains = [band.gain_db for equaliser in equalisers for band in equaliser.bands]
    assert -12 <= min(gains) < -10 < 10 < max(gains) <= 12
    assert set(values(Coding, "codec")) == {"mp3", "aac", "opus", "vorbis"}
    assert set(values(Hum, "frequency_hz")) == {50, 60}
    assert set(values(Noise, "colour")) == {"white", "pink", "brown"}
    low_rates = values(LowRate, "rate_hz")
    assert (low_rates.min(), low_rates.max()) == (8000, 32000)
    snr = values(Noise, "snr_db")
    assert 15 <= snr.min() < 17 < 58 < snr.max() <= 60
    hard = np.mean(values(Clipping, "kind") == "hard")
    assert 0.1 < hard < 0.3


def test_a_chain_is_one_line_of_json_with_all_its_numbers():
    chain = draw_chain(random.Random(2))
    line = chain.to_json()
    assert "\n" not in line
    written = json.loads(line)
    assert [step["step"] for step in written] == ["Noise", "Hum", "Level"]
    for fields, step in zip(written, chain.steps, strict=True):
        name = fields.pop("step")
        rebuilt = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        assert {"Noise": Noise, "Hum": Hum, "Level": Level}[name](**rebuilt) == step


def test_drawn_chains_keep_length_and_limits():
    clip = music()
    for seed in range(25):
        chain = draw_chain(random.Random(seed))
        played = chain.apply(clip, RATE_HZ)
        assert played.dtype == np.float32
        assert played.shape == clip.shape
        assert np.isfinite(played).all()
        if chain.steps:
            peak_db = chain.steps[-1].peak_db
            assert 20 * np.log10(np.abs(played).max()) == pytest.approx(peak_db, abs=1e-3)
        else:
            np.testing.assert_array_equal(played, clip)


def test_music_keeps_its_time_through_all_steps():
    clip = music()
    played = EVERY_STEP.apply(clip, RATE_HZ)
    size = 2 * len(clip)
    products = np.fft.irfft(np.fft.rfft(played, size) * np.fft.rfft(clip, size).conj())
    lag = int(np.argmax(products))
    # The phases of a low-pass and of the compressor are not linear.
    assert min(lag, size - lag) <= 3
    assert products.max() / np.sqrt((played**2).sum() * (clip**2).sum()) > 0.8


def test_silence_a_constant_and_short_clips_are_finite():
    for clip in (np.zeros(9000), np.full(9000, 0.4), np.ones(1), music(100), np.zeros(0)):
        for rate_hz in (8000, 44100, 48000):
            played = EVERY_STEP.apply(clip.astype(np.float32), rate_hz)
            assert played.shape == clip.shape
            assert np.isfinite(played).all()


def test_another_process_makes_the_same_samples():
    program = (
        "import hashlib\n"
        "from tests.synthesis.test_recording_chain import EVERY_STEP, RATE_HZ, music\n"
        "played = EVERY_STEP.apply(music(), RATE_HZ)\n"
        "print(hashlib.sha256(played.tobytes()).hexdigest())\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    np.random.seed(7)
    random.seed(7)
    here = EVERY_STEP.apply(music(), RATE_HZ)
    assert there.stdout.split()[-1] == hashlib.sha256(here.tobytes()).hexdigest()


def test_the_random_numbers_decide_the_chain():
    assert draw_chain(random.Random(5)) == draw_chain(random.Random(5))
    assert len({draw_chain(random.Random(seed)).to_json() for seed in range(1, 40)}) > 30


def test_stereo_is_rejected():
    with pytest.raises(ValueError, match=r"mono.*\(2, 100\)"):
        EVERY_STEP.apply(np.ones((2, 100), np.float32), RATE_HZ)
