"""Write a data set as TFRecord shards of decoded, resampled audio."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfkeras.data.audio import AudioFormat, Waveform, read_audio
from rfkeras.data.bad_files import BadFileLog
from rfkeras.data.dataset import AudioDataset, Split
from rfkeras.data.presence import check_present
from rfkeras.data.records import (
    FORMAT_NAME,
    FORMAT_VERSION,
    INDEX_NAME,
    PackedSplit,
    sha256,
)
from rfkeras.data.scan import check_clip
from rfkeras.errors import AudioError, ConfigError
from rfkeras.files import write_text

_FULL_SCALE = 32768
_ORDER_SEED = 0
_CHUNK_CLIPS = 64  # decoded ahead of the writer


@dataclass(frozen=True)
class _Clip:
    """A clip ready to be written."""

    row: int
    wav: bytes
    length: int
    clipped: bool


def pack(
    dataset: AudioDataset,
    audio: AudioFormat,
    out_dir: Path,
    *,
    shard_mb: float = 128.0,
    workers: int | None = None,
    progress: bool = True,
    max_bad_share: float = 0.01,
) -> Path:
    """Decode, check and resample every clip, and write shards and their index.

    Samples are rounded to 16 bits: they differ from reading the files by at most half a
    step (2^-16); peaks above full scale are clipped, and the index says in how many clips.
    The train split is written in a fixed random order, so that a shuffle buffer mixes
    classes that lie together in the source. Bad files are left out, listed in
    out_dir/bad_files.csv, up to the limit.

    Args:
        dataset: What to pack.
        audio: Format to store; the model's.
        out_dir: A new folder, or one in which packing did not finish.
        shard_mb: Shard size in MB, reached before the next shard starts.
        workers: Decoding threads; the number of CPUs when None.
        progress: Show a bar on standard error.
        max_bad_share: Largest share of bad files that is tolerated.

    Returns:
        The index, which is written last: a folder that has one is complete.

    Raises:
        ConfigError: out_dir already has an index, or the data set is packed already.
        DatasetError: Too many files are missing or bad.
    """
    out_dir = Path(out_dir)
    index_path = out_dir / INDEX_NAME
    if index_path.exists():
        raise ConfigError(f"{out_dir} already holds a packed data set. Choose another folder.")
    if any(isinstance(split, PackedSplit) for split in dataset.splits.values()):
        raise ConfigError("This data set is packed already. Pack from its source.")
    if shard_mb <= 0:
        raise ConfigError(f"shard_mb must be positive. Received: {shard_mb}.")
    check_present(dataset, max_bad_share=max_bad_share)
    out_dir.mkdir(parents=True, exist_ok=True)
    total = sum(len(split) for split in dataset.splits.values())
    bad_files = BadFileLog(
        out_dir / "bad_files.csv", total_files=total, max_bad_share=max_bad_share
    )
    packer = _Packer(
        audio, out_dir, dataset.clip_seconds, int(shard_mb * 1e6), workers, progress, bad_files
    )
    index = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "dataset": dataset.name,
        "label_names": list(dataset.label_names),
        "audio": asdict(audio),
        "clip_seconds": dataset.clip_seconds,
        "task": dataset.task,
        "info": dataset.info,
        "splits": {name: packer.split(name, split) for name, split in dataset.splits.items()},
        "left_out": [asdict(file) for file in bad_files.files],
    }
    write_text(index_path, json.dumps(index, separators=(",", ":")))
    return index_path


def to_wav(waveform: Waveform, audio: AudioFormat) -> tuple[bytes, bool]:
    """16-bit PCM WAV bytes of a waveform, and whether a sample had to be clipped."""
    import soundfile

    scaled = np.rint(waveform * np.float32(_FULL_SCALE))
    integers = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, integers, audio.sample_rate_hz, format="WAV", subtype="PCM_16")
    # Rounding +1.0 to the largest step is no clipping that anyone could hear or measure.
    return buffer.getvalue(), bool((np.abs(scaled) > _FULL_SCALE).any())


@dataclass(frozen=True)
class _Packer:
    """What all splits of one packing share."""

    audio: AudioFormat
    out_dir: Path
    clip_seconds: float | None
    shard_bytes: int
    workers: int | None
    progress: bool
    bad_files: BadFileLog

    def split(self, name: str, split: Split) -> dict[str, Any]:
        """Write the shards of one split; returns its entry in the index."""
        import tensorflow as tf

        shards: list[dict[str, Any]] = []
        clips: list[_Clip] = []
        writer: Any = None
        size = records = 0

        def close() -> None:
            writer.close()
            shards.append(self._finish(name, len(shards), records))

        for clip in self._decoded(name, split):
            if writer is None:
                writer = tf.io.TFRecordWriter(str(self._part(name, len(shards))))
                size = records = 0
            writer.write(_example(split, clip, len(clips)))
            clips.append(_Clip(clip.row, b"", clip.length, clip.clipped))
            size += len(clip.wav)
            records += 1
            if size >= self.shard_bytes:
                close()
                writer = None
        if writer is not None:
            close()
        rows = [clip.row for clip in clips]
        return {
            "shards": shards,
            "keys": [split.keys[row] for row in rows],
            "lengths": [clip.length for clip in clips],
            "clipped_clips": sum(clip.clipped for clip in clips),
            "labels": split.labels[rows].tolist(),
            "mask": split.mask[rows].tolist(),
        }

    def _decoded(self, name: str, split: Split) -> Iterator[_Clip]:
        """Clips in the order in which they are stored, decoded in parallel."""
        rows = np.arange(len(split))
        if name == "train":
            rows = np.random.default_rng(_ORDER_SEED).permutation(rows)
        with ThreadPoolExecutor(self.workers or os.cpu_count() or 1) as pool:
            chunks = [rows[i : i + _CHUNK_CLIPS] for i in range(0, len(rows), _CHUNK_CLIPS)]
            for chunk in self._tracked(chunks, name):
                for result in pool.map(lambda row: self._clip(split, int(row)), chunk):
                    if isinstance(result, AudioError):
                        self.bad_files.record(result, f"pack {name}")
                    else:
                        yield result

    def _tracked(self, chunks: list[Any], name: str) -> Iterator[Any]:
        if not self.progress:
            yield from chunks
            return
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        yield from track(chunks, description=f"Packing {name}", console=console)

    def _clip(self, split: Split, row: int) -> _Clip | AudioError:
        path = split.paths[row]
        try:
            check_clip(split, row, self.clip_seconds)
            waveform = read_audio(path, self.audio)
            wav, clipped = to_wav(waveform, self.audio)
            stored = read_audio(wav, self.audio, name=str(path))
        except AudioError as error:
            return error
        limit = np.clip(waveform, -1, 1 - 1 / _FULL_SCALE)
        if stored.shape != waveform.shape or np.abs(stored - limit).max() > 0.5 / _FULL_SCALE:
            return AudioError(str(path), "what was packed differs from what was read")
        return _Clip(row, wav, len(waveform), clipped)

    def _part(self, name: str, number: int) -> Path:
        return self.out_dir / f"{name}-{number:05d}.tfrecord.part"

    def _finish(self, name: str, number: int, records: int) -> dict[str, Any]:
        part = self._part(name, number)
        final = part.with_suffix("")
        part.replace(final)
        return {
            "file": final.name,
            "records": records,
            "bytes": final.stat().st_size,
            "sha256": sha256(str(final)),
        }


def _example(split: Split, clip: _Clip, stored_row: int) -> bytes:
    import tensorflow as tf

    def floats(values: Any) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def raw(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "key": raw(split.keys[clip.row].encode("utf-8", "surrogateescape")),
        "row": tf.train.Feature(int64_list=tf.train.Int64List(value=[stored_row])),
        "wav": raw(clip.wav),
        "labels": floats(split.labels[clip.row]),
        "mask": floats(split.mask[clip.row]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString()
    return serialized
