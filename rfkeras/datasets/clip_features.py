"""Spectrograms of whole training clips on disk, from which excerpts are cut.

`open_features` computes what is missing and opens the rest. Runs with the same clips and the
same front-end share the files, also several at the same time. A folder of features has parts of
`_PART_CLIPS` clips, each an array and a table:

    part-00000.npy   float16 (frames of all clips of the part, mel, channel), in dB
    part-00000.json  {"samples": samples of each clip, "bad": {row of the clip: reason}}

The table is written last and atomically, so a part that has one is complete. An interrupted
computation continues with the first part that is missing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets.base import BadFile, BadFileLog, Split
from rfkeras.datasets.excerpts import crop_or_repeat, excerpt_start, parallel_reads
from rfkeras.errors import AudioError, ConfigError
from rfkeras.utils.files import (
    MAX_OPTIONS_BYTES,
    atomic_write,
    exclusive,
    read_json,
    remove_leftovers,
    write_text,
)
from rfkeras.utils.progress import ProgressBar

if TYPE_CHECKING:
    from rfkeras.frontend import Frontend

FORMAT = 1  # part of the name of a folder; a change makes older files unused
_PART_CLIPS = 64
_BLOCK_FRAMES = 2048  # long clips are computed in blocks, which bounds the memory
# Properties of the layer that do not change the spectrogram of a clip.
_IRRELEVANT = ("name", "trainable", "dtype", "min_frames")


@dataclass(frozen=True)
class ClipFeatures:
    """Mel spectrograms in dB of the clips of a split, in files that are mapped into memory.

    Attributes:
        parts: Arrays of `clips_per_part` clips each.
        first_frames: First frame of each clip in its part.
        samples: Samples of each clip; 0 for a clip that cannot be used.
        bad: Files that cannot be used, by row.
        hop_samples: Samples between two frames.
        clips_per_part: Clips per part.
    """

    parts: tuple[NDArray[np.float16], ...]
    first_frames: NDArray[np.int64]
    samples: NDArray[np.int64]
    bad: dict[int, BadFile]
    hop_samples: int
    clips_per_part: int = _PART_CLIPS

    def excerpt_shape(self, samples: int) -> tuple[int, ...]:
        """Return the shape of an excerpt of this many samples, (time, mel, channel)."""
        return (1 + samples // self.hop_samples, *self.parts[0].shape[1:])

    def excerpt(self, row: int, fraction: float, samples: int) -> NDArray[np.float16]:
        """Return the spectrogram of an excerpt.

        Args:
            row: Row of the clip in the split.
            fraction: Place of the excerpt, from 0 (start) to just below 1 (end). The excerpt
                starts at the last multiple of the hop before the place at which
                `ClipReader.excerpt` would start.
            samples: Length of the excerpt.

        Returns:
            (time, mel, channel). Its frames are those of the clip, so the first and the last
            ones contain audio next to the excerpt, not its reflection.

        Raises:
            AudioError: The clip cannot be used.
        """
        if row in self.bad:
            raise AudioError(self.bad[row].path, self.bad[row].reason)
        start = excerpt_start(int(self.samples[row]), fraction, samples) // self.hop_samples
        first = int(self.first_frames[row]) + start
        part = self.parts[row // self.clips_per_part]
        return np.array(part[first : first + self.excerpt_shape(samples)[0]])


def open_features(
    root: Path,
    split: Split,
    frontend: Frontend,
    audio: AudioFormat,
    *,
    excerpt_seconds: float,
    bad_files: BadFileLog,
    decoder: str = "soundfile",
) -> ClipFeatures:
    """Open the spectrograms of the clips of a split, after computing those that are missing.

    A clip shorter than an excerpt is repeated circularly to that length. A file that cannot
    be read stays unusable for all runs that share the features, until the folder is deleted.

    Args:
        root: Folder of the features of all data sets and front-ends.
        split: The clips, as files.
        frontend: The front-end, which must have a fixed floor.
        audio: Format of the waveforms.
        excerpt_seconds: Length of the excerpts.
        bad_files: Collects files that cannot be read.
        decoder: As in `training_batches`.

    Raises:
        ConfigError: The excerpts are too short for the model.
        DatasetError: Too many files cannot be read.
    """
    samples = audio.samples(excerpt_seconds)
    if samples < frontend.min_samples:
        raise ConfigError(
            f"cache_features needs excerpts of at least {frontend.min_samples} samples, the "
            "least for this model. Use longer excerpts, or leave out cache_features. "
            f"Received: excerpt_seconds={excerpt_seconds:g}, which is {samples} samples."
        )
    folder = root / _identity(split, frontend, audio, samples)
    folder.mkdir(parents=True, exist_ok=True)
    firsts = range(0, len(split), _PART_CLIPS)
    opened = [_open_part(folder, first, frontend) for first in firsts]
    if None in opened:
        with exclusive(folder / ".lock", _note_waiting):
            remove_leftovers(folder)
            writer = _Writer(folder, split, frontend, audio, samples, decoder)
            with ProgressBar("Computing features", len(split), unit="clips") as progress:
                for number, first in enumerate(firsts):
                    opened[number] = _open_part(folder, first, frontend) or writer.write(first)
                    progress.update(min(first + _PART_CLIPS, len(split)))
    parts = [part for part in opened if part is not None]
    bad = {
        row: BadFile(str(split.paths[row]), reason, "training")
        for part in parts
        for row, reason in part.bad.items()
    }
    bad_files.record_all(bad.values())
    return ClipFeatures(
        tuple(part.features for part in parts),
        np.concatenate([part.first_frames for part in parts]),
        np.concatenate([part.samples for part in parts]),
        bad,
        frontend.hop_samples,
    )


def _note_waiting(holder: str) -> None:
    print(f"Waiting for process {holder}, which computes the features", file=sys.stderr)


def _identity(split: Split, frontend: Frontend, audio: AudioFormat, samples: int) -> str:
    """Return a name for the features that changes with everything that changes their values."""
    layer = {k: v for k, v in frontend.get_config().items() if k not in _IRRELEVANT}
    digest = hashlib.sha256()
    digest.update(json.dumps([layer, audio.channels, samples], sort_keys=True).encode())
    with ThreadPoolExecutor(parallel_reads()) as pool:
        statuses = pool.map(lambda path: path.stat(), split.paths)
        for key, status in zip(split.keys, statuses, strict=True):
            digest.update(key.encode(errors="surrogateescape") + b"\0")
            digest.update(f"{status.st_size} {status.st_mtime_ns}\0".encode())
    return f"v{FORMAT}-{digest.hexdigest()[:16]}"


@dataclass(frozen=True)
class _Part:
    """A complete part."""

    features: NDArray[np.float16]
    first_frames: NDArray[np.int64]
    samples: NDArray[np.int64]
    bad: dict[int, str]


def _open_part(folder: Path, first: int, frontend: Frontend) -> _Part | None:
    """Open the part that begins with a clip; None if it is not there or is damaged."""
    array, table = _files(folder, first)
    try:
        content = read_json(table, MAX_OPTIONS_BYTES)
        features = np.load(array, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    samples = np.array(content["samples"], np.int64)
    frames = np.where(samples > 0, 1 + samples // frontend.hop_samples, 0)
    if len(features) != frames.sum():
        return None
    bad = {int(row): reason for row, reason in content["bad"].items()}
    return _Part(features, np.cumsum(frames) - frames, samples, bad)


def _files(folder: Path, first: int) -> tuple[Path, Path]:
    """Return the array and the table of the part that begins with a clip."""
    name = f"part-{first // _PART_CLIPS:05d}"
    return folder / f"{name}.npy", folder / f"{name}.json"


class _Writer:
    """Computes and writes parts."""

    def __init__(
        self,
        folder: Path,
        split: Split,
        frontend: Frontend,
        audio: AudioFormat,
        samples: int,
        decoder: str,
    ) -> None:
        import tensorflow as tf

        self._folder = folder
        self._split = split
        self._frontend = frontend
        self._audio = audio
        self._samples = samples
        self._decoder = decoder
        shape = (1, *audio.shape(samples))
        spec = tf.TensorSpec([1, None, *shape[2:]], tf.float32)
        self._mel_db = tf.function(frontend.mel_db, input_signature=[spec])

    def write(self, first: int) -> _Part:
        """Write the part that begins with a clip, and open it."""
        rows = range(first, min(first + _PART_CLIPS, len(self._split)))
        with ThreadPoolExecutor(parallel_reads()) as pool:
            clips = list(pool.map(self._clip, rows))
        array, table = _files(self._folder, first)
        empty = (0, self._frontend.n_mels, self._audio.channels)
        features = [clip for _, clip in clips if not isinstance(clip, str)]
        with atomic_write(array) as aside, aside.open("wb") as file:
            np.save(file, np.concatenate([np.zeros(empty, np.float16), *features]))
        samples = [length for length, _ in clips]
        bad = {row: c for row, (_, c) in zip(rows, clips, strict=True) if isinstance(c, str)}
        write_text(table, json.dumps({"samples": samples, "bad": bad}))
        part = _open_part(self._folder, first, self._frontend)
        assert part is not None
        return part

    def _clip(self, row: int) -> tuple[int, NDArray[np.float16] | str]:
        """Return the samples and the spectrogram of a clip, or 0 and why it is unusable."""
        path = self._split.paths[row]
        try:
            with open_audio(path, self._audio, decoder=self._decoder) as file:
                waveform = file.read()
        except AudioError as error:
            return 0, error.reason
        if len(waveform) < self._samples:
            waveform = crop_or_repeat(waveform, 0, self._samples)
        return len(waveform), mel_db_of_clip(self._frontend, waveform, self._mel_db)


def mel_db_of_clip(
    frontend: Frontend, waveform: Waveform, mel_db: Callable[[Any], Any]
) -> NDArray[np.float16]:
    """Compute the spectrogram of a clip of any length.

    A long clip is computed in blocks of frames, each with enough audio around it that its
    frames are those of the whole clip.

    Args:
        frontend: The front-end, which must have a fixed floor.
        waveform: (samples,) or (samples, channels), at least `frontend.min_samples`.
        mel_db: `frontend.mel_db`, compiled.

    Returns:
        (time, mel, channel).
    """
    blocks = [
        mel_db(waveform[None, samples])[0, kept].numpy().astype(np.float16)
        for samples, kept in _blocks(frontend, len(waveform))
    ]
    return np.concatenate(blocks)


def _blocks(frontend: Frontend, samples: int) -> Iterator[tuple[slice, slice]]:
    """Return the samples of every block, and the frames of their spectrogram that are kept."""
    hop = frontend.hop_samples
    frames = 1 + samples // hop
    # Half a window would be enough, but the front-end pads waveforms below its minimum.
    margin = max(-(-frontend.window_samples // hop), frontend.min_frames)
    for first in range(0, frames, _BLOCK_FRAMES):
        low, end = max(0, first - margin), min(frames, first + _BLOCK_FRAMES)
        yield slice(low * hop, (end + margin) * hop), slice(first - low, end - low)
