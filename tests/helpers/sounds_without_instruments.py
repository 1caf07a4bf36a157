"""Sounds without instruments: silence, noise, engines, birds and speech.

They are made in other ways than those of `rfkeras.synthesis.ensemble_clips`, which models hear
in training.
"""

import shutil
import subprocess

import numpy as np
import soundfile

RATE_HZ = 22050
SECONDS = 6.0


def _peak(samples, peak=0.3):
    return (peak * samples / max(np.abs(samples).max(), 1e-9)).astype("float32")


def _noise(seed):
    return np.random.default_rng(seed).normal(size=int(SECONDS * RATE_HZ))


def silence():
    return np.zeros(int(SECONDS * RATE_HZ), "float32")


def white_noise():
    return _peak(_noise(1))


def pink_noise():
    spectrum = np.fft.rfft(_noise(2))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    return _peak(np.fft.irfft(spectrum))


def engine():
    """Return a motor that speeds up: 25 to 60 bursts of low noise a second."""
    time = np.arange(int(SECONDS * RATE_HZ)) / RATE_HZ
    phase = np.cumsum(25 + 35 * time / SECONDS) / RATE_HZ
    burst = np.exp(-8 * (phase % 1))
    low = np.convolve(_noise(3), np.hanning(90), "same")
    return _peak(burst * low + 0.02 * _noise(4))


def birds():
    """Return calls that fall from 5 to 3.5 kHz with a fast trill, over faint wind."""
    time = np.arange(int(SECONDS * RATE_HZ)) / RATE_HZ
    wave = np.zeros_like(time)
    for start in np.arange(0.2, SECONDS - 0.5, 0.7):
        inside = (time >= start) & (time < start + 0.25)
        t = time[inside] - start
        pitch = 5000 - 6000 * t + 300 * np.sin(2 * np.pi * 38 * t)
        wave[inside] = np.hanning(len(t)) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE_HZ)
    wind = np.convolve(_noise(5), np.ones(40) / 40, "same")
    return _peak(wave + 0.03 * wind / np.abs(wind).max())


SOUNDS = {each.__name__: each for each in (silence, white_noise, pink_noise, engine, birds)}

SENTENCES = (
    "The committee will meet again on Thursday, and the minutes will be sent by post.",
    "Turn left at the bridge. Then follow the river for about two miles.",
)
HAS_SPEECH = shutil.which("espeak-ng") is not None


def speech(folder, number, voice="en"):
    """Return a sentence spoken by espeak-ng at 22,050 Hz."""
    path = folder / f"speech{number}.wav"
    command = ["espeak-ng", "-v", voice, "-w", str(path), SENTENCES[number]]
    subprocess.run(command, check=True, capture_output=True)
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE_HZ
    return _peak(samples)
