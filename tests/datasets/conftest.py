"""Small audio files and data sets that the tests of the data room share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.datasets.base import AudioDataset, BadFileLog, Split


def music(seconds: float, rate: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Decaying tones and a little noise: (frames, channels) float32 within [-1, 1]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tones = sum(
        np.sin(2 * np.pi * frequency * time + rng.uniform(0, 6)) / (1 + index)
        for index, frequency in enumerate(rng.uniform(80, 3000, 6))
    )
    envelope = 0.2 * np.exp(-2 * (time % 0.5))
    noise = 0.005 * rng.standard_normal((len(time), channels))
    pan = rng.uniform(0.5, 1, channels)
    return ((envelope * tones)[:, None] * pan + noise).astype(np.float32)


RATE = 1000


def ramp(row: int, samples: int) -> np.ndarray:
    """A waveform that tells which clip a sample is from, and its place: see `where`."""
    return (row + np.arange(samples) / 65536).astype(np.float32) / 64


def where(waveform: np.ndarray) -> tuple[int, int]:
    """Clip and place of the first sample of an excerpt of a `ramp`."""
    value = float(waveform[0]) * 64
    return int(value), round((value - int(value)) * 65536)


def log(limit: float = 0.0, total: int = 100) -> BadFileLog:
    return BadFileLog(None, total_files=total, max_bad_share=limit)


def break_file(split: Split, row: int) -> None:
    split.paths[row].write_bytes(b"broken")


@pytest.fixture
def ramps(tmp_path: Path) -> Callable[..., AudioDataset]:
    """Makes data sets of float WAV files of 1000 Hz that hold ramps, all in split train."""

    def make(clips: int, samples: int | list[int] = 800) -> AudioDataset:
        lengths = [samples] * clips if isinstance(samples, int) else samples
        paths = []
        for row, length in enumerate(lengths):
            path = tmp_path / f"clip{row:02d}.wav"
            soundfile.write(path, ramp(row, length), RATE, subtype="FLOAT")
            paths.append(path)
        labels = np.eye(clips, 3, dtype=np.float32)
        labels[:, 2] = np.arange(clips) / 64  # so that a batch's labels tell the clip too
        mask = np.tile(np.array([1, 0, 1], np.float32), (clips, 1))
        split = Split(tuple(path.stem for path in paths), tuple(paths), labels, mask)
        return AudioDataset("ramps", ("a", "b", "row"), {"train": split})

    return make
