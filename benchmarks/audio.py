"""Synthesise music-like audio for decoding; codecs treat noise and single tones differently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 44_100
TEXT = (
    "The audio is synthetic: chords of three voices with twelve decaying harmonics each, a "
    "bass and noise bursts as drums, at 120 beats per minute and 44.1 kHz. Each voice has its "
    "own stereo position. Files are written by libsndfile at its default quality"
)
_BEAT_SECONDS = 0.5
_HARMONICS = np.arange(1, 13)
_SCALE = np.array([0, 2, 4, 5, 7, 9, 11])
_PHRASE_SECONDS = 10.0


def phrase(seed: int) -> NDArray[np.float32]:
    """Synthesise ten seconds of music: (samples, 2) at 44.1 kHz."""
    rng = np.random.default_rng(seed)
    samples = round(_BEAT_SECONDS * SAMPLE_RATE_HZ)
    beats = [_beat(rng, samples) for _ in range(round(_PHRASE_SECONDS / _BEAT_SECONDS))]
    return np.concatenate(beats).astype(np.float32)


def _beat(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    seconds = np.arange(samples) / SAMPLE_RATE_HZ
    mixed = np.zeros((samples, 2))
    for octave in (2, 4, 4, 5):
        pitch = 12 * octave + rng.choice(_SCALE)
        hz = 440.0 * 2.0 ** ((pitch - 57) / 12) * _HARMONICS[:, None]
        fading = np.exp(-seconds * (2.0 + _HARMONICS[:, None])) / _HARMONICS[:, None]
        phases = rng.uniform(0, 2 * np.pi, hz.shape)
        voice = (np.sin(2 * np.pi * hz * seconds + phases) * fading * (hz < 16_000)).sum(0)
        mixed += 0.08 * voice[:, None] * _place(rng)
    drum = rng.normal(size=samples) * np.exp(-seconds * rng.choice([15.0, 60.0]))
    mixed += 0.05 * drum[:, None] * _place(rng)
    return mixed


def _place(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0.2, 0.8) * np.pi / 2
    place: NDArray[np.float64] = np.array([np.cos(angle), np.sin(angle)])
    return place


def write_audio(path: Path, seconds: float, *, channels: int = 2, seed: int = 0) -> None:
    """Write an audio file of any length, phrase by phrase.

    Args:
        path: File to write; its extension (.wav, .flac, .ogg or .mp3) sets the format.
        seconds: Length. After ten phrases the music repeats.
        channels: 1 or 2.
        seed: Seed of the first phrase.
    """
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, channels) as file:
        for block in _blocks(round(seconds * SAMPLE_RATE_HZ), seed):
            file.write(block if channels == 2 else block.mean(axis=1))


def _blocks(samples: int, seed: int) -> Iterator[NDArray[np.float32]]:
    phrases: list[NDArray[np.float32]] = []
    number = 0
    while samples > 0:
        if len(phrases) < 10:
            phrases.append(phrase(1000 * seed + number))
        block = phrases[number % 10][:samples]
        yield block
        samples -= len(block)
        number += 1
