"""Audio for conversions: to scale integers by, and to try a converted model on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfkeras.data.audio import AudioFile, AudioFormat, Waveform
from rfkeras.errors import AudioError, ConfigError

N_EXCERPTS = 48
EXCERPT_SECONDS = 10.0

Batches = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Excerpts:
    """Waveforms at a model's rate, and where they are from.

    Attributes:
        waveforms: Each (samples,) or (samples, 2), float32.
        audio: Their sample rate and channels.
        source: For the reader of a table.
    """

    waveforms: list[Waveform]
    audio: AudioFormat
    source: str


def read_excerpts(
    sources: Sequence[Path], audio: AudioFormat, count: int = N_EXCERPTS
) -> Excerpts:
    """The middle 10 s of some of the files, evenly spread over them; shorter files whole.

    Args:
        sources: Audio files, and folders that are searched at any depth.
        audio: The model's sample rate and channels.
        count: Most files that are read.

    Raises:
        ConfigError: There is no audio file.
        AudioError: None of those that were chosen can be read; the reason of the first.
    """
    from rfkeras.tagging.files import find_audio

    files = [file for file in find_audio(sources) if file.error is None]
    step = max(1.0, len(files) / count)
    chosen = [files[int(i * step)] for i in range(min(count, len(files)))]
    waveforms: list[Waveform] = []
    first_error: AudioError | None = None
    for file in chosen:
        try:
            with AudioFile(file.path, audio) as opened:
                samples = min(opened.length, audio.samples(EXCERPT_SECONDS))
                waveforms.append(opened.read((opened.length - samples) // 2, samples))
        except AudioError as error:
            first_error = first_error or error
    if not waveforms:
        raise first_error or ConfigError(
            f"No audio can be read under {', '.join(map(str, sources))}."
        )
    where = ", ".join(map(str, sources))
    return Excerpts(waveforms, audio, f"{len(waveforms)} excerpts from {where}")


def generated_clips(root: Path | None = None) -> Path | None:
    """Audio of the largest gm_instruments data set in the cache; None where there is none."""
    from rfkeras.data.sources.gm_instruments.generate import default_cache_dir

    root = default_cache_dir() if root is None else root
    folders = root.glob("gm_instruments-v*/openmic-2018/audio")
    return max(folders, key=lambda folder: sum(1 for _ in folder.glob("*/*")), default=None)


def synthetic_excerpts(audio: AudioFormat, count: int = 6) -> Excerpts:
    """Decaying tones over soft noise: enough to compare with, too little to calibrate by."""
    rng = np.random.default_rng(0)
    samples = audio.samples(EXCERPT_SECONDS)
    time = np.arange(samples) / audio.sample_rate_hz
    waveforms = []
    for _ in range(count):
        waveform = 0.003 * rng.normal(size=samples)
        for onset in np.arange(0.0, EXCERPT_SECONDS, 0.5):
            hz, since = 55.0 * 2 ** rng.uniform(0, 5), np.maximum(time - onset, 0.0)
            waveform += 0.1 * np.sin(2 * np.pi * hz * since) * np.exp(-4.0 * since)
        waveform = np.clip(waveform, -1, 1).astype(np.float32)
        if audio.channels == 2:
            waveform = np.stack([waveform, np.roll(waveform, 100)], axis=-1)
        waveforms.append(waveform)
    return Excerpts(waveforms, audio, f"{count} synthetic excerpts")


def trial_batches(excerpts: Excerpts) -> Batches:
    """Batches of several sizes and lengths for a comparison.

    Every excerpt alone; the first ones together, cut to the shortest; a third of one; and
    50 samples, less than any network needs.
    """
    waveforms = excerpts.waveforms
    shortest = min(len(waveform) for waveform in waveforms)
    first = waveforms[0]
    return [
        *(waveform[None] for waveform in waveforms),
        np.stack([waveform[:shortest] for waveform in waveforms[:3]]),
        first[None, : max(1, len(first) // 3)],
        first[None, :50],
    ]
