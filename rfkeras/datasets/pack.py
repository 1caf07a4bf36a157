"""Write a data set as TFRecord shards of decoded, resampled audio."""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets.base import AudioDataset, BadFile, BadFileLog, Split, print_damaged
from rfkeras.datasets.checks import check_clip, check_present
from rfkeras.datasets.packed import FORMAT_NAME, FORMAT_VERSION, INDEX_NAME, PackedSplit, sha256
from rfkeras.errors import AudioError, ConfigError, one_file
from rfkeras.utils.files import (
    PARTIAL,
    move_into_place,
    naming_write_errors,
    remove_leftovers,
    sole_writer,
    write_text,
)
from rfkeras.utils.label_names import check_label_names
from rfkeras.utils.progress import track
from rfkeras.utils.remote import RemotePath, scratch_path, to_path

LOCK = ".lock"
_ORDER_SEED = 0
_CHUNK_CLIPS = 64  # decoded ahead of the writer
_FULL_SCALE = 32768


def pack(
    dataset: AudioDataset,
    audio: AudioFormat,
    out_dir: Path,
    *,
    shard_mb: float = 128.0,
    workers: int | None = None,
    progress: bool = True,
    max_bad_share: float = 0.01,
    decoder: str = "soundfile",
) -> Path:
    """Decode, check and resample every clip, and write shards and their index.

    Samples are rounded to 16 bits, so they differ from the files by at most half a step
    (2^-16). Peaks above full scale are clipped; the index records in how many clips. The
    train split is stored in a fixed random order, so that a shuffle buffer mixes classes
    that are next to each other in the source. Bad files, up to the limit, are left out and
    listed in out_dir/bad_files.csv.

    Args:
        dataset: Data set to pack.
        audio: Format to store: the input format of the model.
        out_dir: A new folder, or one in which packing did not finish. May be an s3://, gs://,
            az:// or hdfs:// URL.
        shard_mb: Size in MB at which the next shard starts.
        workers: Number of decoding threads; None uses one per CPU.
        progress: Show progress on standard error.
        max_bad_share: Largest tolerated share of bad files.
        decoder: "soundfile", or "isolated" to decode in separate processes that may crash.

    Returns:
        Path of the index. It is written last, so a folder with an index is complete.

    Raises:
        ConfigError: out_dir already has an index, or the data set is already packed.
        DatasetError: Too many files are missing or bad.
    """
    out_dir = to_path(out_dir)
    if isinstance(out_dir, RemotePath):
        out_dir.check_writable()
    check_target(out_dir, dataset)
    if shard_mb <= 0:
        raise ConfigError(f"shard_mb must be positive. Received: {shard_mb}.")
    check_present(dataset, max_bad_share=max_bad_share)
    total = sum(len(split) for split in dataset.splits.values())
    with sole_writer(out_dir / LOCK, out_dir):
        check_target(out_dir, dataset)  # another process may have just finished
        remove_leftovers(out_dir)
        bad_files = BadFileLog(
            out_dir / "bad_files.csv", total_files=total, max_bad_share=max_bad_share
        )
        packer = _Packer(
            audio,
            out_dir,
            dataset.clip_seconds,
            int(shard_mb * 1e6),
            workers,
            progress,
            bad_files,
            decoder,
        )
        shards = {name: packer.pack(name, split) for name, split in dataset.splits.items()}
        print_damaged(dataset.name, packer.damaged)
        return write_index(out_dir, dataset, audio, shards, bad_files)


@dataclass(frozen=True)
class _Packer:
    """The settings of one packing, and the steps that use them."""

    audio: AudioFormat
    out_dir: Path
    clip_seconds: float | None
    shard_bytes: int
    workers: int | None
    progress: bool
    bad_files: BadFileLog
    decoder: str
    damaged: list[BadFile] = field(default_factory=list)

    def pack(self, name: str, split: Split) -> list[WrittenShard]:
        """Write the shards of one split."""
        shards: list[WrittenShard] = []
        writer: ShardWriter | None = None
        for clip in self._encoded_clips(name, split):
            if writer is None:
                writer = ShardWriter(self.out_dir / shard_name(name, len(shards)), split)
            writer.add(clip)
            if writer.audio_bytes >= self.shard_bytes:
                shards.append(writer.finish())
                writer = None
        if writer is not None:
            shards.append(writer.finish())
        return shards

    def _encoded_clips(self, name: str, split: Split) -> Iterator[EncodedClip]:
        """Encode the clips in parallel, in the order of storage."""
        rows = storage_order(name, split)
        with ThreadPoolExecutor(self.workers or os.cpu_count() or 1) as pool:
            chunks = [rows[i : i + _CHUNK_CLIPS] for i in range(0, len(rows), _CHUNK_CLIPS)]
            shown = track(
                chunks, len(chunks), f"Packing {name}", unit="parts", quiet=not self.progress
            )
            for chunk in shown:
                for result in pool.map(lambda row: self._encode(split, int(row)), chunk):
                    if isinstance(result, AudioError):
                        self.bad_files.record(result, f"pack {name}")
                        continue
                    if result.damage:
                        path = str(split.paths[result.row])
                        self.damaged.append(BadFile(path, result.damage, f"pack {name}"))
                    yield result

    def _encode(self, split: Split, row: int) -> EncodedClip | AudioError:
        try:
            return encode_clip(split, row, self.audio, self.clip_seconds, self.decoder)
        except AudioError as error:
            return error


# Parts that the Apache Beam pipeline uses too


def check_target(out_dir: Path, dataset: AudioDataset) -> None:
    """Check that the data set can be packed and that the folder has no index yet.

    Raises:
        ConfigError: out_dir already has an index, the data set is already packed, or a tag's
            name is refused.
    """
    if (out_dir / INDEX_NAME).exists():
        raise ConfigError(
            f"{out_dir} already has a packed data set. Choose another folder, or remove it."
        )
    if any(isinstance(split, PackedSplit) for split in dataset.splits.values()):
        raise ConfigError("This data set is already packed. Pack its source instead.")
    check_label_names(dataset.label_names)


def storage_order(name: str, split: Split) -> NDArray[np.int64]:
    """Return the rows of a split in the order of storage; for train, a fixed random one."""
    rows = np.arange(len(split))
    return np.random.default_rng(_ORDER_SEED).permutation(rows) if name == "train" else rows


def shard_name(split: str, number: int) -> str:
    """Return the file name of a shard."""
    return f"{split}-{number:05d}.tfrecord"


@dataclass(frozen=True)
class EncodedClip:
    """A clip in the form in which it is stored.

    Attributes:
        row: Row of the clip in its split.
        wav: A 16-bit PCM WAV file.
        length: Number of samples.
        clipped: Whether any sample was above full scale.
        damage: What of the file cannot be decoded, or "".
    """

    row: int
    wav: bytes
    length: int
    clipped: bool
    damage: str = ""


def encode_clip(
    split: Split,
    row: int,
    audio: AudioFormat,
    clip_seconds: float | None = None,
    decoder: str = "soundfile",
) -> EncodedClip:
    """Check, decode and resample a clip, encode it as WAV, and verify the result.

    Args:
        split: The clips.
        row: Row of the clip in the split.
        audio: Format to store.
        clip_seconds: Length that every file should have; None if lengths vary.
        decoder: One of `rfkeras.audio.decode.FILE_DECODERS`.

    Raises:
        AudioError: The file cannot be used.
    """
    path = split.paths[row]
    with one_file(path):
        check_clip(split, row, clip_seconds, decoder=decoder)
        with open_audio(path, audio, decoder=decoder) as file:
            waveform = file.read()
            damage = "; ".join(file.notes)
        wav, clipped = to_wav(waveform, audio)
        with open_audio(wav, audio, str(path)) as file:
            stored = file.read()
        limit = np.clip(waveform, -1, 1 - 1 / _FULL_SCALE)
        if stored.shape != waveform.shape or np.abs(stored - limit).max() > 0.5 / _FULL_SCALE:
            raise AudioError(str(path), "the packed samples differ from those of the file")
        return EncodedClip(row, wav, len(waveform), clipped, damage)


def to_wav(waveform: Waveform, audio: AudioFormat) -> tuple[bytes, bool]:
    """Encode a waveform as 16-bit PCM WAV.

    Args:
        waveform: float32 of shape (samples,) or (samples, 2).
        audio: Format of the waveform.

    Returns:
        (content of the WAV file, whether any sample was clipped).
    """
    import soundfile

    scaled = np.rint(waveform * np.float32(_FULL_SCALE))
    integers = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, integers, audio.sample_rate_hz, format="WAV", subtype="PCM_16")
    # Rounding +1.0 to the largest step does not count as clipping, because it is inaudible.
    return buffer.getvalue(), bool((np.abs(scaled) > _FULL_SCALE).any())


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard.

    Attributes:
        file: Name of the file.
        bytes: Size of the file.
        sha256: SHA-256 of the file in hex.
        rows: Row of each clip in its split, in the order of storage.
        lengths: Number of samples of each clip.
        clipped_clips: Number of clips with a sample above full scale.
    """

    file: str
    bytes: int
    sha256: str
    rows: list[int]
    lengths: list[int]
    clipped_clips: int


class ShardWriter:
    """Writes one shard. The file gets its name only when it is complete.

    Args:
        path: The file. To a URL, it is uploaded when it is complete.
        split: Split that the clips belong to.
    """

    def __init__(self, path: Path, split: Split) -> None:
        import tensorflow as tf

        self.path = path
        self.split = split
        self.audio_bytes = 0
        self._aside = (
            scratch_path(path.name)
            if isinstance(path, RemotePath)
            else path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        )
        self._writer = tf.io.TFRecordWriter(str(self._aside))
        self._rows: list[int] = []
        self._lengths: list[int] = []
        self._clipped = 0

    def add(self, clip: EncodedClip) -> None:
        """Append a clip."""
        with self._writing():
            self._writer.write(_record(self.split, clip))
        self.audio_bytes += len(clip.wav)
        self._rows.append(clip.row)
        self._lengths.append(clip.length)
        self._clipped += clip.clipped

    def finish(self) -> WrittenShard:
        """Close the file and give it its name."""
        with self._writing():
            self._writer.close()
            size, digest = self._aside.stat().st_size, sha256(str(self._aside))
            if isinstance(self.path, RemotePath):
                self.path.upload(self._aside)
                self._aside.unlink()
            else:
                move_into_place(self._aside, self.path)
        return WrittenShard(
            self.path.name,
            size,
            digest,
            self._rows,
            self._lengths,
            self._clipped,
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with naming_write_errors(self.path):
                yield
        except BaseException:
            with suppress(OSError):
                self._aside.unlink(missing_ok=True)
            raise


def _record(split: Split, clip: EncodedClip) -> bytes:
    """Serialize a clip as tf.train.Example; `rfkeras.datasets.packed` describes the fields."""
    import tensorflow as tf

    def floats(values: Any) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def raw(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "key": raw(split.keys[clip.row].encode("utf-8", "surrogateescape")),
        "wav": raw(clip.wav),
        "labels": floats(split.labels[clip.row]),
        "mask": floats(split.mask[clip.row]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString()
    return serialized


def write_index(
    out_dir: Path,
    dataset: AudioDataset,
    audio: AudioFormat,
    shards: Mapping[str, Sequence[WrittenShard]],
    bad_files: BadFileLog,
) -> Path:
    """Write the index, which makes a folder of shards a packed data set.

    Shards that an earlier, unfinished packing left in the folder are removed.

    Args:
        out_dir: The folder.
        dataset: The source.
        audio: Format of the shards.
        shards: Shards of each split, in order.
        bad_files: The files that were left out.

    Returns:
        Path of the index.
    """
    index = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "dataset": dataset.name,
        "label_names": check_label_names(dataset.label_names),
        "audio": asdict(audio),
        "clip_seconds": dataset.clip_seconds,
        "task": dataset.task,
        "info": dataset.info,
        "splits": {name: _split_entry(dataset.splits[name], of) for name, of in shards.items()},
        "left_out": [asdict(file) for file in bad_files.files],
    }
    index_path = out_dir / INDEX_NAME
    write_text(index_path, json.dumps(index, separators=(",", ":")))
    indexed = {shard.file for of in shards.values() for shard in of}
    for name in shards:
        own = re.compile(rf"{re.escape(name)}-[0-9]{{5}}\.tfrecord")
        for path in list(out_dir.iterdir()):
            if own.match(path.name) and path.name not in indexed:
                path.unlink()
    return index_path


def _split_entry(split: Split, shards: Sequence[WrittenShard]) -> dict[str, Any]:
    """Return the entry of a split in the index."""
    rows = [row for shard in shards for row in shard.rows]
    return {
        "shards": [
            {
                "file": shard.file,
                "records": len(shard.rows),
                "bytes": shard.bytes,
                "sha256": shard.sha256,
            }
            for shard in shards
        ],
        "keys": [split.keys[row] for row in rows],
        "lengths": [length for shard in shards for length in shard.lengths],
        "clipped_clips": sum(shard.clipped_clips for shard in shards),
        "labels": split.labels[rows].tolist(),
        "mask": split.mask[rows].tolist(),
    }
