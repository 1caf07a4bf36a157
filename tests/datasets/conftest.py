"""Small audio files and data sets for the tests of data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.datasets import mir
from rfkeras.datasets.base import AudioDataset, BadFileLog, Split
from rfkeras.errors import ConfigError


def music(seconds: float, rate: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Return decaying tones with noise: (frames, channels) float32 within [-1, 1]."""
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
    """Return a waveform whose samples encode the clip and the position; see `where`."""
    return (row + np.arange(samples) / 65536).astype(np.float32) / 64


def where(waveform: np.ndarray) -> tuple[int, int]:
    """Return the clip and the position of the first sample of an excerpt of a `ramp`."""
    value = float(waveform[0]) * 64
    return int(value), round((value - int(value)) * 65536)


def log(limit: float = 0.0, total: int = 100) -> BadFileLog:
    return BadFileLog(None, total_files=total, max_bad_share=limit)


def break_file(split: Split, row: int) -> None:
    split.paths[row].write_bytes(b"broken")


def split_of(labels, groups=None, folder=None, mask=None, prefix="clip"):
    """Return a split with these labels, keys clip0, clip1, ... and no audio files."""
    labels = np.asarray(labels, np.float32)
    keys = tuple(f"{prefix}{row}" for row in range(len(labels)))
    paths = tuple((folder / f"{key}.wav") if folder else key for key in keys)
    mask = np.ones_like(labels) if mask is None else np.asarray(mask, np.float32)
    return Split(keys, paths, labels, mask, groups=groups)


@pytest.fixture
def ramps(tmp_path: Path) -> Callable[..., AudioDataset]:
    """Return a function that writes ramps to float WAV files at 1000 Hz, in the split train."""

    def make(clips: int, samples: int | list[int] = 800) -> AudioDataset:
        lengths = [samples] * clips if isinstance(samples, int) else samples
        paths = []
        for row, length in enumerate(lengths):
            path = tmp_path / f"clip{row:02d}.wav"
            soundfile.write(path, ramp(row, length), RATE, subtype="FLOAT")
            paths.append(path)
        labels = np.eye(clips, 3, dtype=np.float32)
        labels[:, 2] = np.arange(clips) / 64  # so that labels identify the clip too
        mask = np.tile(np.array([1, 0, 1], np.float32), (clips, 1))
        split = Split(tuple(path.stem for path in paths), tuple(paths), labels, mask)
        return AudioDataset("ramps", ("a", "b", "row"), {"train": split})

    return make


@pytest.fixture(scope="session")
def mir_packages():
    """Skip the test where mirdata or soundata is missing."""
    for name in mir.PACKAGES:
        try:
            mir.import_package(name)
        except ConfigError as error:
            pytest.skip(str(error))
